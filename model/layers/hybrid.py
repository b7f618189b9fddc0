"""The hybrid Mamba block of DA-Mamba (arXiv 2509.17711): local attention beside a global SSM."""

import torch
from torch import Tensor, nn

from model.layers.attention import ChunkAttention


class HybridBlock(nn.Module):
    """x + merge(local chunked attention, global selective SSM), both on LayerNorm(x).

    merge: `gate` (per channel g local + (1 - g) global, g learned), `sum`, `concat` (Linear over
    both).
    """

    def __init__(
        self, width: int, heads: int, chunk: int, mixer: nn.Module, merge: str, dropout: float
    ):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.local = ChunkAttention(width, heads, chunk)
        self.globally = mixer
        self.merge = merge
        if merge == "gate":
            self.gate = nn.Parameter(torch.zeros(width))
        elif merge == "concat":
            self.join = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (R, L, W), mask (R, L) -> (R, L, W)."""
        u = self.norm(x)  # (R, L, W)
        near, far = self.local(u, mask), self.globally(u, mask)  # (R, L, W) each
        if self.merge == "gate":
            g = torch.sigmoid(self.gate)  # (W,)
            y = g * near + (1 - g) * far
        elif self.merge == "concat":
            y = self.join(torch.cat([near, far], dim=-1))
        else:
            y = near + far
        return x + self.dropout(y)
