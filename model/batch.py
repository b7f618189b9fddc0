"""What a model gets: a batch of windows, with every person stored once."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B target windows over R distinct person-windows of L frames.

    Persons are kept once and referred to by row, because in a conversation of n people every one
    is a target once and a partner n - 1 times.

    streams : feature -> (R, L, D) as read; rows that are not valid may hold anything, NaN included
    valid : feature -> (R, L) bool, the feature exists at this frame
    frames : (R, L) bool, the frame lies inside the recording (false: padding of the first and last
        windows, absent for every computation)
    target : (B,) rows of the targets
    partners : (B, P) rows of their partners, -1 where there is none; P may be 0
    label, label_mask : (B, L) engagement, and where it is known and counts; None when predicting
    person : (R, 3) session, role and window of every row, as indices of `training.windows.Windows`
    domain : (R,) corpus of every row, 0 unknown (model.prompts); None: all unknown
    prompts : how many of the L frames are prompts, at the beginning; they belong to no recording
    """

    streams: dict[str, Tensor]
    valid: dict[str, Tensor]
    frames: Tensor
    target: Tensor
    partners: Tensor
    label: Tensor | None = None
    label_mask: Tensor | None = None
    person: Tensor | None = None
    domain: Tensor | None = None
    prompts: int = 0

    @property
    def recorded(self) -> Tensor:
        """(R, L) bool, frames of the recording without prompts: where a model's losses count."""
        if not self.prompts:
            return self.frames
        return torch.cat(
            [torch.zeros_like(self.frames[:, : self.prompts]), self.frames[:, self.prompts :]], 1
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""

        def move(value):
            if isinstance(value, dict):
                return {name: tensor.to(device) for name, tensor in value.items()}
            return value.to(device) if isinstance(value, Tensor) else value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})


def take_rows(persons: Tensor, rows: Tensor) -> Tensor:
    """persons (R, ...), rows (B, P) with -1 for nobody -> (B, P, ...); nobody is all zeros."""
    taken = persons[rows.clamp(min=0)]  # (B, P, ...)
    present = (rows >= 0).view(*rows.shape, *[1] * (persons.dim() - 1))
    return torch.where(present, taken, torch.zeros((), dtype=taken.dtype, device=taken.device))
