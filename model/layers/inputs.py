"""From a stream as read to a model's width: normalisation, projection, absent frames."""

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(values - mean) / std per dimension, clipped; rows that are not valid become 0.

    mean and std are buffers: they travel inside the checkpoint and come from training sessions
    only (training.statistics). `clip` in standard deviations, 0 = off. `shift`: in training, every
    person-window gets its own constant offset per dimension, drawn with this many standard
    deviations: voices and faces differ by such offsets, and few training people are easily
    memorised by them.
    """

    def __init__(self, feature: str, dim: int, clip: float, shift: float = 0.0):
        super().__init__()
        self.feature = feature
        self.clip, self.shift = clip, shift
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """values (R, L, D), NaN allowed where valid (R, L) is false -> (R, L, D), finite."""
        # The mean replaces missing rows before anything is computed, so that no NaN reaches autograd.
        # In place from here on: the inputs are the largest tensors of a step.
        z = torch.where(valid.unsqueeze(-1), values, self.mean)  # (R, L, D)
        z = z.sub_(self.mean).div_(self.std)
        if self.clip:
            z = z.clamp_(-self.clip, self.clip)
        if self.shift and self.training:
            offset = torch.randn(
                len(z), 1, z.shape[-1], dtype=z.dtype, device=z.device
            )  # (R, 1, D)
            z = z.addcmul_(offset, valid.unsqueeze(-1).to(z.dtype), value=self.shift)
        return z


class StreamInput(nn.Module):
    """One stream to the common width: (R, L, D), (R, L) -> (R, L, d).

    A missing frame (no face, no left context) is its own learned vector `absent`, not a zero that
    looks like an average frame.
    """

    def __init__(self, feature: str, dim: int, d: int, clip: float, shift: float = 0.0):
        super().__init__()
        self.normalise = Normalise(feature, dim, clip, shift)
        self.project = nn.Linear(dim, d)
        self.absent = nn.Parameter(torch.zeros(d))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        x = self.project(self.normalise(values, valid))  # (R, L, d)
        return torch.where(valid.unsqueeze(-1), x, self.absent)
