"""Building blocks: input normalisation, local attention, hybrid block, cross-attention.

Glossary (code name: symbol or name in arXiv 2509.17711)
    StreamInput: normalisation + 1x1 convolution of one cue   ChunkAttention: local branch,
    chunk: s   HybridBlock: hybrid Mamba block (local chunked attention + global selective SSM)
    CrossAttention: attention of the dialogue-aware encoder (target asks, partners answer)
    L: frames n   W: width of a block   H: heads
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MERGES = ("gate", "sum", "concat")


class Normalise(nn.Module):
    """(values - mean) / std per dimension, clipped; rows that are not valid become 0.

    mean and std are buffers: they travel inside the checkpoint and come from training sessions
    only (model.statistics). `clip` in standard deviations, 0 = off. `shift`: in training, every
    person-window gets its own constant offset per dimension, drawn with this many standard
    deviations: voices and faces differ by such offsets, and few training people are easily
    memorised by them.
    """

    def __init__(self, dim: int, clip: float, shift: float = 0.0):
        super().__init__()
        self.clip, self.shift = clip, shift
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """values (R, L, D), NaN allowed where valid (R, L) is false -> (R, L, D), finite."""
        # The mean replaces missing rows before anything is computed, so that no NaN reaches autograd.
        values = torch.where(valid.unsqueeze(-1), values, self.mean)
        z = (values - self.mean) / self.std  # (R, L, D)
        if self.clip:
            z = z.clamp(-self.clip, self.clip)
        if self.shift and self.training:
            offset = torch.randn(
                len(z), 1, z.shape[-1], dtype=z.dtype, device=z.device
            )  # (R, 1, D)
            z = torch.where(valid.unsqueeze(-1), z + self.shift * offset, z)
        return z


class StreamInput(nn.Module):
    """One stream to the common width: (R, L, D), (R, L) -> (R, L, d).

    A missing frame (no face, no left context) is its own learned vector `absent`, not a zero that
    looks like an average frame.
    """

    def __init__(self, dim: int, d: int, clip: float, shift: float = 0.0):
        super().__init__()
        self.normalise = Normalise(dim, clip, shift)
        self.project = nn.Linear(dim, d)
        self.absent = nn.Parameter(torch.zeros(d))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        x = self.project(self.normalise(values, valid))  # (R, L, d)
        return torch.where(valid.unsqueeze(-1), x, self.absent)


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
