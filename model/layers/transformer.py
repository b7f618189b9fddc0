"""Transformer layers: attention with masks, the pre-norm block of DAT, and a mixer.

Glossary (code name: symbol)
    W: width of the residual stream   H: heads   E: width of a head (dim_head)
    B: sequences   T: asking frames   S: answering frames   L: frames of a self-attention
    hidden: inner width of the feed-forward part
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers.attention import join_heads, split_heads
from runtime import InputError

ROTARY_BASE = 10_000.0


class MultiHeadAttention(nn.Module):
    """Softmax attention of some frames to others: (B, T, W), (B, S, W), (B, S) -> (B, T, W).

    Frames where the mask is false are never answered from; `allowed` (T, S) says which frames may
    ask which. Where no frame may answer, the result is zeros (no bias either). `rotary`: queries and keys are turned by their frame index, so
    that only differences of time count (arXiv 2104.09864); for self-attention, no parameters.
    The inner width, heads x dim_head, need not be W.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dim_head: int | None = None,
        bias: bool = False,
        rotary: bool = False,
    ):
        super().__init__()
        inner = heads * dim_head if dim_head else width
        if inner % heads:
            raise InputError(f"{heads} heads do not divide the width {width}", "change the heads")
        if rotary and inner // heads < 2:
            raise InputError(
                f"{heads} heads leave {inner // heads} channel each, too few to tell time",
                "choose fewer heads",
            )
        self.heads, self.rotary = heads, rotary
        self.query = nn.Linear(width, inner, bias=bias)
        self.key_value = nn.Linear(width, 2 * inner, bias=bias)
        self.out = nn.Linear(inner, width)

    def forward(
        self, x: Tensor, context: Tensor, mask: Tensor, allowed: Tensor | None = None
    ) -> Tensor:
        q = split_heads(self.query(x), self.heads)  # (B, H, T, E)
        k, v = self.key_value(context).chunk(2, dim=-1)  # (B, S, H E) each
        k, v = split_heads(k, self.heads), split_heads(v, self.heads)  # (B, H, S, E)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        mask = mask[:, None, None, :]  # (B, 1, 1, S)
        if allowed is not None:
            mask = mask & allowed  # (B, 1, T, S)
        any_key = mask.any(-1)  # (B, 1, 1 or T)
        # Without any key every key is let in and the answer thrown away: softmax over nothing is NaN.
        keys = mask | ~any_key.unsqueeze(-1)  # (B, 1, 1 or T, S)
        # Fused: the (T, S) weights are never stored, so memory grows with T + S.
        answer = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)  # (B, H, T, E)
        answer = self.out(join_heads(answer))  # (B, T, W)
        return torch.where(any_key.squeeze(1).unsqueeze(-1), answer, 0.0)  # (B, T, W)


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of channels by frame index x frequency: (..., L, E) -> same.

    Channel i is paired with i + E // 2; of an odd E the last channel stays.
    """
    L, half = x.shape[-2], x.shape[-1] // 2
    # Angles in float64: in float32 equal differences of late frames would differ visibly.
    frequency = ROTARY_BASE ** -(
        torch.arange(half, device=x.device, dtype=torch.float64) / half
    )  # (E/2,)
    angle = torch.arange(L, device=x.device, dtype=torch.float64)[:, None] * frequency  # (L, E/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)  # (L, E/2) each
    a, b = x[..., :half], x[..., half : 2 * half]  # (..., L, E/2) each
    return torch.cat([a * cos - b * sin, a * sin + b * cos, x[..., 2 * half :]], dim=-1)


class FeedForward(nn.Module):
    """LayerNorm, Linear, GELU, Linear, frame by frame: (..., W) -> (..., W); no residual inside."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.up(self.norm(x)), approximate="tanh")  # (..., hidden)
        return self.dropout(self.down(self.dropout(y)))  # (..., W)


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and feed-forward part, each with its residual, as in DAT.

    (B, L, W), (B, L) -> (B, L, W). No bias in query, key and value; dropout after the output
    projection, none on the attention weights; no norm at the end.
    """

    def __init__(self, width: int, heads: int, dim_head: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, dim_head)
        self.dropout = nn.Dropout(dropout)
        self.feed = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        u = self.norm(x)  # (B, L, W)
        x = x + self.dropout(self.attention(u, u, mask))  # (B, L, W)
        return x + self.feed(x)


class TransformerMixer(nn.Module):
    """What a Transformer block adds to its input, for where a Mamba block stands otherwise.

    (B, L, W), (B, L) -> (B, L, W). Like MambaBlock it has no norm before and no residual around it
    (the caller has both); inside, the feed-forward part follows the attention as in any Transformer.
    Rotary positions, because a Mamba block knows the order of frames and bare attention does not.
    Masked frames are never seen, wherever they stand. `hidden` (default: the width) makes 6 W^2
    weights, as many as a Mamba block with expand 2.
    """

    def __init__(self, width: int, heads: int = 8, hidden: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.attention = MultiHeadAttention(width, heads, rotary=True)
        self.dropout = nn.Dropout(dropout)
        self.feed = FeedForward(width, hidden or width, dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        seen = self.dropout(self.attention(x, x, mask))  # (B, L, W)
        return seen + self.feed(x + seen)
