"""Baselines with the contract of every model: forward(batch) -> {"engagement", "losses"}."""

import torch
from torch import Tensor, nn

from model.batch import Batch
from model.blocks import Normalise
from model.config import ConstantConfig, MlpConfig


class Mlp(nn.Module):
    """Per-frame multilayer perceptron with ReLU on the target's own streams (no time, no partner).

    The challenge's mandatory baseline: three ReLU layers. A stream that is missing at a frame is
    zero (its training mean), and a flag per stream says so.
    """

    def __init__(self, config: MlpConfig, dims: dict[str, int]):
        super().__init__()
        self.config = config
        self.normalise = nn.ModuleDict(
            {
                name: Normalise(dim, config.input_clip, config.input_shift)
                for name, dim in dims.items()
            }
        )
        widths = [sum(dims.values()) + len(dims), *[config.hidden] * config.layers]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(config.hidden, 1))
        self.register_buffer("label_mean", torch.zeros(()))
        self.register_buffer("label_std", torch.ones(()))

    def load_statistics(self, statistics: dict[str, dict], label: dict[str, float]) -> None:
        """Take over mean and std (training sessions only) of the streams and of the labels."""
        for name, normalise in self.normalise.items():
            normalise.mean.copy_(torch.as_tensor(statistics[name]["mean"]))
            normalise.std.copy_(torch.as_tensor(statistics[name]["std"]))
        self.label_mean.fill_(label["mean"])
        self.label_std.fill_(label["std"])

    def forward(self, batch: Batch) -> dict:
        """batch -> {"engagement": (B, L), "losses": {}}."""
        inputs = []
        for name, normalise in self.normalise.items():
            valid = batch.valid[name][batch.target]  # (B, L)
            inputs.append(normalise(batch.streams[name][batch.target], valid))  # (B, L, D)
            inputs.append(valid.unsqueeze(-1).to(inputs[-1].dtype))  # (B, L, 1)
        score = self.layers(torch.cat(inputs, dim=-1)).squeeze(-1)  # (B, L)
        return {"engagement": self.label_mean + self.label_std * score, "losses": {}}

    def parts(self) -> dict[str, list[nn.Module]]:
        """Modules per part, for the parameter table."""
        return {"layers": [self.layers]}


class Constant(nn.Module):
    """Mean of the training labels at every frame: what any model has to beat."""

    def __init__(self, config: ConstantConfig, dims: dict[str, int]):
        super().__init__()
        self.config = config
        self.register_buffer("label_mean", torch.zeros(()))

    def load_statistics(self, statistics: dict[str, dict], label: dict[str, float]) -> None:
        """Take over the mean of the training labels."""
        self.label_mean.fill_(label["mean"])

    def forward(self, batch: Batch) -> dict:
        """batch -> {"engagement": (B, L), "losses": {}}."""
        frames = batch.frames[batch.target]  # (B, L)
        engagement: Tensor = self.label_mean.expand(frames.shape)  # (B, L)
        return {"engagement": engagement, "losses": {}}

    def parts(self) -> dict[str, list[nn.Module]]:
        """Nothing is learned."""
        return {}
