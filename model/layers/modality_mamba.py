"""Mamba whose projections know the modality of a token (AlignMamba-2, arXiv 2603.18462).

Glossary (code name: name in the paper)
    shared: modality-shared expert   own: modality-specific experts, chosen by the modality
"""

import torch
from torch import Tensor, nn

from model.layers.mamba import MambaBlock


class ModalityLinear(nn.Module):
    """W_shared x + W_k x for a token of kind k: (B, T, n) -> (B, T, m).

    The specific weights start at zero: training starts from one projection for all.
    """

    def __init__(self, n: int, m: int, n_kinds: int):
        super().__init__()
        self.shared = nn.Linear(n, m, bias=False)
        self.own = nn.Parameter(torch.zeros(n_kinds, m, n))

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        """x (B, T, n), kind (B, T), numbers below n_kinds."""
        flat, kinds = x.flatten(0, 1), kind.flatten()  # (B T, n), (B T,)
        y = self.shared(flat)  # (B T, m)
        for k, weight in enumerate(self.own):
            rows = (kinds == k).nonzero().squeeze(1)  # (tokens of this kind,)
            y = y.index_add(0, rows, nn.functional.linear(flat[rows], weight).to(y.dtype))
        return y.unflatten(0, x.shape[:2])


class ModalityMamba(nn.Module):
    """A Mamba block between two `ModalityLinear`: convolution and scan are those of all kinds.

    directions: 1 = causal, 2 = a second block that reads backwards, both added
    """

    def __init__(
        self, d_model: int, d_state: int, d_conv: int, expand: int, n_kinds: int, directions: int
    ):
        super().__init__()
        d_inner = expand * d_model
        self.in_proj, self.core, self.out_proj = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for _ in range(directions):
            core = MambaBlock(d_model, d_state, d_conv, expand)
            core.in_proj, core.out_proj = nn.Identity(), nn.Identity()
            self.core.append(core)
            self.in_proj.append(ModalityLinear(d_model, 2 * d_inner, n_kinds))
            self.out_proj.append(ModalityLinear(d_inner, d_model, n_kinds))

    def forward(self, x: Tensor, mask: Tensor, kind: Tensor) -> Tensor:
        """x (B, T, d_model), mask (B, T), kind (B, T) -> (B, T, d_model)."""
        y = torch.zeros_like(x)
        for i, core in enumerate(self.core):
            xz = self.in_proj[i](x, kind)  # (B, T, 2 d_inner)
            turned = core(xz.flip(1), mask.flip(1)).flip(1) if i else core(xz, mask)
            y = y + self.out_proj[i](turned, kind)  # (B, T, d_model)
        return y
