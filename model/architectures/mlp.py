"""Per-frame multilayer perceptron: the challenge's mandatory baseline."""

import torch
from torch import nn

from model.batch import Batch
from model.configs.mlp import MlpConfig
from model.frame_model import FrameModel
from model.layers.inputs import Normalise


class Mlp(FrameModel):
    """Three ReLU layers on the target's own streams (no time, no partner).

    A stream that is missing at a frame is zero (its training mean), and a flag per stream says so.
    """

    dialogue = False

    def __init__(self, config: MlpConfig, dims: dict[str, int], outputs: int = 1):
        super().__init__(config, dims, outputs)
        self.normalise = nn.ModuleDict(
            {
                name: Normalise(name, dim, config.input_clip, config.input_shift)
                for name, dim in dims.items()
            }
        )
        widths = [sum(dims.values()) + len(dims), *[config.hidden] * config.layers]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(config.hidden, outputs))

    def estimate(self, batch: Batch) -> dict:
        inputs = []
        for name, normalise in self.normalise.items():
            valid = batch.valid[name][batch.target]  # (B, L)
            inputs.append(normalise(batch.streams[name][batch.target], valid))  # (B, L, D)
            inputs.append(valid.unsqueeze(-1).to(inputs[-1].dtype))  # (B, L, 1)
        return self.result(self.layers(torch.cat(inputs, dim=-1)))

    def parts(self) -> dict[str, list[nn.Module]]:
        return {"layers": [self.layers]}


Model = Mlp
