"""The hybrid Mamba block of DA-Mamba (arXiv 2509.17711): local attention beside a global SSM."""

import torch
from torch import Tensor, nn

from model.layers.attention import ChunkAttention
from model.layers.mamba import Memory, mix


class HybridBlock(nn.Module):
    """x + merge(local chunked attention, global selective SSM), both on LayerNorm(x).

    local: the local branch, None = global branch alone. merge: `gate` (per channel
    g local + (1 - g) global, g learned), `sum`, `concat` (Linear over both).
    """

    def __init__(
        self,
        width: int,
        local: ChunkAttention | None,
        mixer: nn.Module,
        merge: str,
        dropout: float,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.local, self.globally, self.merge = local, mixer, merge
        if local is not None and merge == "gate":
            self.gate = nn.Parameter(torch.zeros(width))
        elif local is not None and merge == "concat":
            self.join = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Memory | None = None) -> Tensor:
        """x (R, L, W), mask (R, L) -> (R, L, W). With a memory, x begins at a border of chunks."""
        u = self.norm(x)  # (R, L, W)
        near = None if self.local is None else self.local(u, mask)  # (R, L, W)
        return x + self.dropout(self.merged(near, mix(self.globally, u, mask, memory)))

    def merged(self, near: Tensor | None, far: Tensor) -> Tensor:
        """What both branches say together: (..., W) each -> (..., W)."""
        if near is None:
            return far
        if self.merge == "gate":
            g = torch.sigmoid(self.gate)  # (W,)
            return g * near + (1 - g) * far
        if self.merge == "concat":
            return self.join(torch.cat([near, far], dim=-1))
        return near + far
