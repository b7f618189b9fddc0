"""Relaxed optimal transport between two sequences of tokens, and their interleaving.

Glossary (code name: symbol in AlignMamba, arXiv 2412.00833, eqs. 1-6 and 11)
    source, anchor: X_v or X_a, and X_l   cost: C (eq. 3)   plan: M (eq. 5), here before 1/T_v
    transport: M^T X (eq. 6)   relaxed_distance: the optimum of eq. 4, a distance to be minimised
Sizes in shape comments
    I source tokens, J anchor tokens, d width, T = L M tokens of L frames and M modalities
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Finite, so that a row without any allowed pair has finite gradients; far beyond any cost / tau.
FORBIDDEN = 1e6


def cosine_cost(source: Tensor, anchor: Tensor) -> Tensor:
    """1 - cosine, in fp32 whatever autocast says: (..., I, d), (..., J, d) -> (..., I, J)."""
    with torch.autocast(source.device.type, enabled=False):
        dtype = torch.promote_types(source.dtype, torch.float32)
        s = F.normalize(source.to(dtype), dim=-1, eps=1e-6)  # (..., I, d)
        a = F.normalize(anchor.to(dtype), dim=-1, eps=1e-6)  # (..., J, d)
        return 1 - torch.matmul(s, a.transpose(-1, -2))  # (..., I, J)


def allowed_pairs(
    source_valid: Tensor, anchor_valid: Tensor, band: int = 0, causal: bool = False
) -> Tensor:
    """Which source token may go to which anchor: (..., I), (..., J) -> (..., I, J) bool.

    band: at most this many frames apart, 0 = any; causal: to no anchor before the source.
    """
    pairs = source_valid.unsqueeze(-1) & anchor_valid.unsqueeze(-2)  # (..., I, J)
    i = torch.arange(pairs.shape[-2], device=pairs.device).unsqueeze(1)  # (I, 1)
    j = torch.arange(pairs.shape[-1], device=pairs.device)  # (J,)
    if band:
        pairs = pairs & ((i - j).abs() <= band)
    if causal:
        pairs = pairs & (i <= j)
    return pairs


def hard_plan(cost: Tensor, allowed: Tensor, causal: bool = False) -> Tensor:
    """Eq. 5: 1 from every source token to its nearest allowed anchor, (..., I, J), no gradient.

    causal: nearest of the anchors up to now. A later, nearer anchor then gets the token too; what
    an anchor receives never depends on anchors after it.
    """
    cost = cost.detach().masked_fill(~allowed, torch.inf)  # (..., I, J)
    if causal:
        j = torch.arange(cost.shape[-1], device=cost.device)  # (J,)
        return ((cost.cummin(-1).indices == j) & allowed).to(cost.dtype)
    plan = torch.zeros_like(cost).scatter_(-1, cost.argmin(-1, keepdim=True), 1.0)
    return plan * allowed  # a token without any allowed anchor goes nowhere


def soft_plan(cost: Tensor, allowed: Tensor, tau: Tensor, causal: bool = False) -> Tensor:
    """softmax over the anchors of -C / tau, (..., I, J); rows sum to 1, or to 0 without an anchor.

    causal: the softmax runs over the anchors up to now, so rows sum to more than 1.
    """
    logits = (-cost / tau).masked_fill(~allowed, -FORBIDDEN)  # (..., I, J)
    if causal:
        return torch.exp(logits - logits.logcumsumexp(-1)) * allowed
    return logits.softmax(-1) * allowed


def fill_nearest(plan: Tensor, cost: Tensor, allowed: Tensor) -> Tensor:
    """The plan, with 1 from its nearest source token to every anchor that got nothing."""
    missed = ~(plan > 0).any(-2, keepdim=True) & allowed.any(-2, keepdim=True)  # (..., 1, J)
    nearest = cost.detach().masked_fill(~allowed, torch.inf).argmin(-2, keepdim=True)  # (..., 1, J)
    return plan + torch.zeros_like(plan).scatter_(-2, nearest, missed.to(plan.dtype))


def transport(source: Tensor, plan: Tensor, count: Tensor | None = None) -> Tensor:
    """M^T X: (..., I, d), (..., I, J) -> (..., J, d).

    count (...): T_v of eq. 5, the plan is divided by it; None: every anchor gets the mean of its
    tokens, zero where there is none.
    """
    moved = torch.matmul(plan.to(source.dtype).transpose(-1, -2), source)  # (..., J, d)
    share = plan.sum(-2) if count is None else count.unsqueeze(-1)  # (..., J) or (..., 1)
    share = torch.where(share > 0, share, 1.0).to(source.dtype)
    return moved / share.unsqueeze(-1)


def relaxed_distance(cost: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Optimum of eq. 4 in both directions, averaged: (...) values, and (...) whether defined.

    The mean over the source tokens of the cost to their nearest anchor, and the reverse. 0 where
    no pair is allowed. Differentiable almost everywhere, in source and anchor.
    """
    far = cost.masked_fill(~allowed, FORBIDDEN)  # (..., I, J)
    both = []
    for side in (-1, -2):
        counts = allowed.any(side)  # (..., I) or (..., J)
        least = torch.where(counts, far.amin(side), 0.0)
        both.append(least.sum(-1) / counts.sum(-1).clamp(min=1))  # (...)
    return (both[0] + both[1]) / 2, allowed.flatten(-2).any(-1)


class LocalAlignment(nn.Module):
    """Source tokens moved to the anchor's time axis.

    normalise: `paper` (divided by the number of source tokens), `column` (mean of what an anchor
    received), `soft` (as column, with a softmax instead of the argmin and a learned temperature)
    fill: what an anchor gets that no token chose, `nearest` source token or `zero` (paper)
    """

    def __init__(self, normalise: str, fill: str, band: int, causal: bool):
        super().__init__()
        self.normalise, self.fill, self.band, self.causal = normalise, fill, band, causal
        if normalise == "soft":
            self.log_tau = nn.Parameter(torch.tensor(0.1).log())

    def forward(
        self, source: Tensor, anchor: Tensor, source_valid: Tensor, anchor_valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """source (..., I, d), anchor (..., J, d), valid (..., I), (..., J).

        Returns the aligned tokens (..., J, d), and (..., J) where an alignment exists: the anchor
        is there and at least one source token may go to it.
        """
        allowed = allowed_pairs(source_valid, anchor_valid, self.band, self.causal)  # (..., I, J)
        cost = cosine_cost(source, anchor)  # (..., I, J)
        if self.normalise == "soft":
            plan = soft_plan(cost, allowed, self.log_tau.exp(), self.causal)  # (..., I, J)
        else:
            plan = hard_plan(cost, allowed, self.causal)  # (..., I, J)
            if self.fill == "nearest":
                plan = fill_nearest(plan, cost, allowed)
        source = torch.where(source_valid.unsqueeze(-1), source, 0.0)  # (..., I, d)
        count = source_valid.sum(-1) if self.normalise == "paper" else None  # (...)
        return transport(source, plan, count), allowed.any(-2)


def interleave(tokens: Tensor) -> Tensor:
    """Eq. 11, time before modality: (B, M, L, ...) -> (B, L M, ...), frame by frame."""
    return tokens.transpose(1, 2).flatten(1, 2)


def deinterleave(tokens: Tensor, modalities: int) -> Tensor:
    """The inverse of `interleave`: (B, L M, ...) -> (B, M, L, ...)."""
    return tokens.unflatten(1, (-1, modalities)).transpose(1, 2)


class Packing:
    """Removes masked tokens from a sequence before a scan, and puts the results back.

    A masked token inside a sequence would still let the state decay; at the end of a sequence it
    does nothing. mask (B, T).
    """

    def __init__(self, mask: Tensor):
        self.order = (~mask).to(torch.int8).argsort(dim=1, stable=True)  # (B, T): present first
        self.back = self.order.argsort(dim=1)  # (B, T)
        self.mask = mask.gather(1, self.order)  # (B, T)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, ...) -> same shape, present tokens first, in their order."""
        return _take(x, self.order)

    def unpack(self, x: Tensor) -> Tensor:
        """The inverse of `pack`."""
        return _take(x, self.back)


def _take(x: Tensor, order: Tensor) -> Tensor:
    """Rows of x (B, T, ...) in the order (B, T)."""
    return x.gather(1, order.view(*order.shape, *[1] * (x.dim() - 2)).expand_as(x))
