"""Attention: within chunks of frames (local), and from a target to its partners.

Glossary (code name: symbol or name in arXiv 2509.17711)
    ChunkAttention: local branch of the hybrid block   local_chunk: s
    CrossAttention: attention of the dialogue-aware encoder (target asks, partners answer)
    L: frames n   W: width of a block   H: heads
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers.blockwise import in_blocks


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """Softmax attention with a key mask; a query without any key gives zeros.

    q (..., H, T, E), k and v (..., H, S, E), mask (..., S), bias broadcastable to (..., H, T, S),
    allowed (..., T, S): keys that a query may see at all, for causal attention.
    """
    scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5  # (..., H, T, S)
    if bias is not None:
        scores = scores + bias
    seen = mask[..., None, None, :]  # (..., 1, 1, S)
    if allowed is not None:
        seen = seen & allowed.unsqueeze(-3)  # (..., 1, T, S)
    outside = torch.finfo(scores.dtype).min / 2  # finite, so that no row of NaN can arise
    weights = scores.masked_fill(~seen, outside).softmax(-1)
    any_key = seen.any(-1, keepdim=True)  # (..., 1, T or 1, 1)
    return torch.where(any_key, torch.matmul(weights, v), 0.0)  # (..., H, T, E)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., T, W) -> (..., H, T, W / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def join_heads(x: Tensor) -> Tensor:
    """(..., H, T, E) -> (..., T, H E)."""
    return x.transpose(-2, -3).flatten(-2)


class ChunkAttention(nn.Module):
    """Self-attention inside consecutive chunks of `local_chunk` frames: linear in the length.

    causal: a frame sees those of its chunk up to itself.
    """

    def __init__(self, width: int, heads: int, local_chunk: int, causal: bool = False):
        super().__init__()
        self.heads, self.local_chunk, self.causal = heads, local_chunk, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (R, L, W), mask (R, L) -> (R, L, W)."""
        L, s = x.shape[1], self.local_chunk
        rest = -L % s
        x, mask = F.pad(x, (0, 0, 0, rest)), F.pad(mask, (0, rest))  # a last, shorter chunk
        x, mask = x.unflatten(1, (-1, s)), mask.unflatten(1, (-1, s))  # (R, L/s, s, W), (R, L/s, s)
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, dim=-1))
        past = mask.new_ones(s, s).tril() if self.causal else None  # (s, s)
        y = join_heads(attend(q, k, v, mask, allowed=past))  # (R, L/s, s, W)
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

    def forward(
        self,
        target: Tensor,
        context: Tensor,
        mask: Tensor,
        instant: Tensor,
        reach: int | None = None,
    ) -> Tensor:
        """target (B, L, W), context (B, S, W), mask (B, S), instant (B, S) frame index -> (B, L, W).

        reach: a frame sees the context of this many instants, the last of which is its own; None:
        all of it, later frames too. A target frame that sees no context gets zeros.
        """
        k, v = self.keys_values(context)  # (B, H, S, E) each
        now = torch.arange(target.shape[1], device=target.device)  # (L,)
        return self.answer(target, now, k, v, mask, instant, reach)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """context (B, S, W) -> keys and values, (B, H, S, E) each."""
        k, v = self.key_value(self.norm_context(context)).chunk(2, dim=-1)  # (B, S, W) each
        return split_heads(k, self.heads), split_heads(v, self.heads)

    def answer(
        self,
        target: Tensor,
        now: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor,
        instant: Tensor,
        reach: int | None,
    ) -> Tensor:
        """`forward` with keys and values at hand; now (L,) instants of the target's frames."""
        q = split_heads(self.query(self.norm_query(target)), self.heads)  # (B, H, L, E)
        slope = self.log_slope.exp()[:, None, None]  # (H, 1, 1)

        def heard(rows: slice) -> Tensor:
            behind = now[rows, None] - instant[:, None, :]  # (B, l, S)
            bias = -slope * behind.abs().to(q.dtype).unsqueeze(1)  # (B, H, l, S)
            allowed = None if reach is None else (behind >= 0) & (behind < reach)  # (B, l, S)
            return attend(q[:, :, rows], k, v, mask, bias, allowed)  # (B, H, l, E)

        L, S = len(now), k.shape[2]
        answer = self.out(join_heads(in_blocks(heard, L, S, dim=2)))  # (B, L, W)
        seen = mask[:, None, :]  # (B, 1, S)
        if reach is not None:
            behind = now[:, None] - instant[:, None, :]  # (B, L, S)
            seen = seen & (behind >= 0) & (behind < reach)
        return torch.where(seen.any(-1, keepdim=True), answer, 0.0)
