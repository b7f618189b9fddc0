"""One modality group of a person as one token per frame.

Sizes in shape comments: R persons of a batch, L frames, D a stream's dimension, s its width after
the projection, d width of a token
"""

import torch
from torch import Tensor, nn

from model.batch import Batch
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
