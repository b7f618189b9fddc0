"""Modality groups of persons as tokens, one per frame, and back to one vector per frame.

Sizes in shape comments: R persons of a batch, B target windows, P partners, L frames, G groups,
D a stream's dimension, s its width after the projection, d width of a token; M modalities of a
target window: every partner's groups, then the target's, M = G (P + 1), or G without partners
"""

import torch
from torch import Tensor, nn

from model.batch import Batch, take_rows
from model.layers.inputs import StreamInput


class GroupEncoder(nn.Module):
    """The streams of a group, projected side by side, then Linear and LayerNorm to one token.

    dims: feature -> dimension of the group's streams; s: width of a projected stream.
    """

    def __init__(
        self, dims: dict[str, int], s: int, d: int, clip: float, shift: float, dropout: float
    ):
        super().__init__()
        self.streams = nn.ModuleDict(
            {name: StreamInput(name, dim, s, clip, shift) for name, dim in dims.items()}
        )
        self.dropout = nn.Dropout(dropout)
        self.join = nn.Linear(s * len(dims), d)
        self.norm = nn.LayerNorm(d)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Every person of the batch: tokens (R, L, d), and (R, L) where a stream was recorded."""
        x = torch.cat(
            [stream(batch.streams[n], batch.valid[n]) for n, stream in self.streams.items()], dim=-1
        )  # (R, L, n s)
        valid = torch.stack([batch.valid[n] for n in self.streams]).any(0)  # (R, L)
        return self.norm(self.join(self.dropout(x))), valid & batch.recorded


def modalities(groups: list[Tensor], batch: Batch, participants: bool) -> Tensor:
    """What every person has per group, (R, L, ...) each, for every target: (B, M, L, ...).

    Person by person, the target last; group by group as given. Nobody's entries are zero (false).
    participants: partners too, not the target alone.
    """
    rows = batch.target.unsqueeze(1)  # (B, 1)
    if participants:
        rows = torch.cat([batch.partners, rows], dim=1)  # (B, P + 1)
    return torch.stack([take_rows(x, rows) for x in groups], dim=2).flatten(1, 2)


def kinds(batch: Batch, groups: int, participants: bool) -> Tensor:
    """Kind of each modality, (M,): the target's groups 0 .. G-1, the partners' groups G .. 2G-1."""
    each = torch.arange(2 * groups, device=batch.target.device)  # (2 G,)
    partners = batch.partners.shape[1] if participants else 0
    return torch.cat([each[groups:].repeat(partners), each[:groups]])


def frame_readout(tokens: Tensor, exists: Tensor, groups: int, participants: bool) -> Tensor:
    """The tokens of each frame side by side: (B, M, L, d) -> (B, L, G d), or (B, L, 2 G d).

    The target's groups, with participants behind the mean over the partners of each of theirs (0
    without any). exists (B, M, L).
    """
    target = tokens[:, -groups:].transpose(1, 2).flatten(2)  # (B, L, G d)
    if not participants:
        return target
    partners = tokens[:, :-groups].unflatten(1, (-1, groups))  # (B, P, G, L, d)
    weight = exists[:, :-groups].unflatten(1, (-1, groups)).unsqueeze(-1).to(tokens.dtype)
    mean = (partners * weight).sum(1) / weight.sum(1).clamp(min=1)  # (B, G, L, d)
    return torch.cat([mean.transpose(1, 2).flatten(2), target], dim=-1)  # (B, L, 2 G d)
