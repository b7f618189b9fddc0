"""Every model by its name: settings in model/configs, the network in model/architectures.

Each has a version of its own in workflow/stages.json, which a run's fingerprint holds: a change of one
network trains its own runs again and no others.
"""

import importlib

from torch import nn

from model.configs import architecture
from model.frame_model import FrameModel
from model.settings import NetworkSettings


def build(
    settings: NetworkSettings, dims: dict[str, int], domains: tuple[str, ...] | list[str] = ()
) -> FrameModel:
    """The model of a run, freshly initialised; dims: feature -> dimension.

    domains: the training datasets, for domain prompts (model.prompts).
    """
    kind = importlib.import_module(architecture(settings.name)).Model
    dims = {name: dims[name] for name in settings.features}
    model = kind(settings.model, dims, settings.outputs)
    model.add_prompts(tuple(domains))
    return model


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Learned parameters per part, and their sum under "total"."""
    counts = {
        part: sum(p.numel() for module in modules for p in module.parameters())
        for part, modules in model.parts().items()
    }
    if model.prompts is not None:
        counts["domain prompts"] = sum(p.numel() for p in model.prompts.parameters())
    counts = {part: n for part, n in counts.items() if n}
    return counts | {"total": sum(p.numel() for p in model.parameters())}
