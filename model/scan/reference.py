"""The definitions, one frame after the other, under autograd: the oracle of every other engine."""

import torch
from torch import Tensor


def reference_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last state (B, D, N); shapes as in `selective_scan`; no D, no z."""
    h = h0  # (B, D, N)
    ys = []
    # unbind once: slicing x[:, t] inside the loop would make the backward pass quadratic in L.
    for x_t, dt_t, B_t, C_t in zip(
        x.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True
    ):
        decay = torch.exp(dt_t.unsqueeze(-1) * A)  # (B, D, N)
        h = decay * h + (dt_t * x_t).unsqueeze(-1) * B_t.unsqueeze(1)  # (B, D, N)
        ys.append((h * C_t.unsqueeze(1)).sum(-1))  # (B, D)
    return torch.stack(ys, dim=1), h


def reference_gated(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """All states h (B, L, K) of h_t = a_t h_{t-1} + b_t; a, b (B, L, K), h0 (B, K)."""
    h, states = h0, []
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        h = a_t * h + b_t  # (B, K)
        states.append(h)
    return torch.stack(states, dim=1)
