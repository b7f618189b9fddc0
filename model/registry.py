"""Every model by name. A new one is a class, a config dataclass in model/config.py and a line here.

The contract of a model class
    __init__(config, dims): dims maps feature -> dimension
    load_statistics(statistics, label): normalisation from the training sessions, kept in buffers
    forward(batch) -> {"engagement": (B, L), "losses": {name: scalar}}: the score loss is the
        training loop's; `losses` holds what a model adds, weighted by training.<name>_weight
    parts() -> {part: [modules]}: for `python -m model describe`
"""

import dataclasses

from torch import nn

from model.baselines import Constant, Mlp
from model.config import Settings
from model.da_mamba import DaMamba

MODELS: dict[str, type[nn.Module]] = {"da_mamba": DaMamba, "mlp": Mlp, "constant": Constant}


def build(settings: Settings, dims: dict[str, int]) -> nn.Module:
    """The model of a run, freshly initialised; dims: feature -> dimension."""
    return MODELS[settings.name](settings.model, {name: dims[name] for name in settings.features})


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Learned parameters per part, and their sum under "total"."""
    counts = {
        part: sum(p.numel() for module in modules for p in module.parameters())
        for part, modules in model.parts().items()
    }
    counts = {part: n for part, n in counts.items() if n}
    return counts | {"total": sum(p.numel() for p in model.parameters())}


def loss_weights(settings: Settings) -> dict[str, float]:
    """Weight of each loss a model may add, by the loss's name."""
    training = dataclasses.asdict(settings.training)
    suffix = "_weight"
    return {key.removesuffix(suffix): w for key, w in training.items() if key.endswith(suffix)}
