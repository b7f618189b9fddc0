"""Attention: within chunks of frames (local), and from a target to its partners.

Glossary (code name: symbol or name in arXiv 2509.17711)
    ChunkAttention: local branch of the hybrid block   chunk: s
    CrossAttention: attention of the dialogue-aware encoder (target asks, partners answer)
    L: frames n   W: width of a block   H: heads
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention with a key mask; a query without any key gives zeros.

    q (..., H, T, E), k and v (..., H, S, E), mask (..., S), bias broadcastable to (..., H, T, S).
    """
    scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5  # (..., H, T, S)
    if bias is not None:
        scores = scores + bias
    outside = torch.finfo(scores.dtype).min / 2  # finite, so that no row of NaN can arise
    weights = scores.masked_fill(~mask[..., None, None, :], outside).softmax(-1)
    any_key = mask.any(-1)[..., None, None, None]  # (..., 1, 1, 1)
    return torch.where(any_key, torch.matmul(weights, v), 0.0)  # (..., H, T, E)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., T, W) -> (..., H, T, W / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def join_heads(x: Tensor) -> Tensor:
    """(..., H, T, E) -> (..., T, H E)."""
    return x.transpose(-2, -3).flatten(-2)


class ChunkAttention(nn.Module):
    """Self-attention inside consecutive chunks of `chunk` frames: linear in the length."""

    def __init__(self, width: int, heads: int, chunk: int):
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (R, L, W), mask (R, L) -> (R, L, W)."""
        L, s = x.shape[1], self.chunk
        rest = -L % s
        x, mask = F.pad(x, (0, 0, 0, rest)), F.pad(mask, (0, rest))  # a last, shorter chunk
        x, mask = x.unflatten(1, (-1, s)), mask.unflatten(1, (-1, s))  # (R, L/s, s, W), (R, L/s, s)
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, dim=-1))
        y = join_heads(attend(q, k, v, mask))  # (R, L/s, s, W)
        return self.out(y.flatten(1, 2)[:, :L])  # (R, L, W)


class CrossAttention(nn.Module):
    """Target frames ask, partner frames answer; a learned slope per head prefers near instants.

    Attention sees a set, so without it no head could tell "now" from "three seconds ago". The slope
    knows only time differences, never which partner a frame belongs to.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_context = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        # Time constants from 1 to 2^(H-1) frames (log of the slope, so that it stays positive).
        self.log_slope = nn.Parameter(-0.6931 * torch.arange(heads, dtype=torch.float32))

    def forward(self, target: Tensor, context: Tensor, mask: Tensor, instant: Tensor) -> Tensor:
        """target (B, L, W), context (B, S, W), mask (B, S), instant (B, S) frame index -> (B, L, W).

        A target without any context frame gets zeros.
        """
        q = split_heads(self.query(self.norm_query(target)), self.heads)  # (B, H, L, E)
        k, v = self.key_value(self.norm_context(context)).chunk(2, dim=-1)  # (B, S, W) each
        k, v = split_heads(k, self.heads), split_heads(v, self.heads)  # (B, H, S, E)
        now = torch.arange(target.shape[1], device=target.device)
        distance = (now[:, None] - instant[:, None, :]).abs().to(q.dtype)  # (B, L, S)
        bias = -self.log_slope.exp()[:, None, None] * distance.unsqueeze(1)  # (B, H, L, S)
        answer = self.out(join_heads(attend(q, k, v, mask, bias)))  # (B, L, W)
        return torch.where(mask.any(1)[:, None, None], answer, 0.0)
