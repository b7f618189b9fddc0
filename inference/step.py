"""The layers of DA-Mamba for one frame: state in place, all persons in one call.

A frame is bound by reading the weights, not by arithmetic, so every weight is read once per frame
for everybody. Sizes in shape comments: R persons (or targets), n frames of one instant (partners
side by side), W width, D inner width of a Mamba block, N its state size, K taps of its convolution,
H heads, E = W / H, s local_chunk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers.attention import ChunkAttention, CrossAttention, attend
from model.layers.hybrid import HybridBlock
from model.layers.inputs import StreamInput
from model.layers.mamba import MambaBlock

FEW = 4  # up to so many rows


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """layer(x), x (R, W); for few rows the weight comes first, which reads it twice as fast."""
    if not 1 < len(x) <= FEW:
        return layer(x)
    y = torch.mm(layer.weight, x.t()).t().contiguous()  # (R, out)
    return y if layer.bias is None else y.add_(layer.bias)


class MambaStep:
    """A Mamba block, frame by frame. freeze: absent frames leave the state as it is (they are
    removed); otherwise they are frames without input, as inside a sequence of `MambaBlock`."""

    def __init__(self, block: MambaBlock, rows: int, freeze: bool = False):
        self.block, self.freeze = block, freeze
        start = block.start(rows)
        self.tail = start.tail  # (R, K - 1, D)
        self.h = start.h.transpose(1, 2).contiguous()  # (R, N, D): the wide side last
        with torch.no_grad():
            self.A = -torch.exp(block.A_log.to(self.h.dtype)).t().contiguous()  # (N, D)
            self.taps = block.conv1d.weight[:, 0].t().contiguous()  # (K, D)

    def __call__(self, x: Tensor, there: Tensor | None) -> Tensor:
        """x (R, n, W), there (R, n) or None for all -> (R, n, W): n frames, one after another."""
        rows, n, W = x.shape
        if there is not None:
            x = x * there.unsqueeze(-1)
        both = linear(x.reshape(rows * n, W), self.block.in_proj).view(rows, n, -1)  # (R, n, 2 D)
        y = [
            self._scan(both[:, i], None if there is None else there[:, i, None]) for i in range(n)
        ]  # (R, D) each
        y = y[0] if n == 1 else torch.stack(y, 1).view(rows * n, -1)
        return linear(y, self.block.out_proj).view(rows, n, W)

    def _scan(self, both: Tensor, there: Tensor | None) -> Tensor:
        """both (R, 2 D) input and gate, there (R, 1) -> (R, D)."""
        block = self.block
        u, z = both.chunk(2, dim=-1)  # (R, D) each
        window = torch.cat([self.tail, u.unsqueeze(1)], dim=1)  # (R, K, D)
        tail = window[:, 1:]
        u = F.silu((window * self.taps).sum(1).add_(block.conv1d.bias))  # (R, D)
        if there is not None:
            u = u * there
        low = linear(u, block.x_proj)  # (R, rank + 2 N)
        dt, B, C = low.split([block.dt_rank, block.d_state, block.d_state], dim=-1)
        dt = F.softplus(linear(dt, block.dt_proj)).to(self.h.dtype)  # (R, D)
        decay = (dt.unsqueeze(1) * self.A).exp_()  # (R, N, D)
        gain = (dt * u).unsqueeze(1) * B.unsqueeze(-1)  # (R, N, D)
        h = torch.addcmul(gain, decay, self.h, out=decay)  # (R, N, D)
        y = torch.matmul(C.unsqueeze(1).to(h.dtype), h).squeeze(1)  # (R, D)
        if there is not None and self.freeze:
            h = torch.where(there.unsqueeze(-1), h, self.h)
            tail = torch.where(there.unsqueeze(-1), tail, self.tail)
        self.h.copy_(h)
        self.tail.copy_(tail)
        return torch.addcmul(y, u, block.D).mul_(F.silu(z)).to(both.dtype)


class LocalStep:
    """Causal attention within chunks, frame by frame: keys and values of the chunk so far."""

    def __init__(self, layer: ChunkAttention, rows: int):
        self.layer = layer
        s, W = layer.local_chunk, layer.out.in_features
        like = layer.out.weight.detach()
        self.keys = like.new_zeros(rows, layer.heads, s, W // layer.heads)  # (R, H, s, E)
        self.values = torch.zeros_like(self.keys)
        self.there = torch.zeros(rows, s, dtype=torch.bool, device=like.device)

    def __call__(self, x: Tensor, there: Tensor | None, frame: int) -> Tensor:
        """x (R, W), there (R,) -> (R, W); frame: index counted from the session's first."""
        slot = frame % self.layer.local_chunk
        q, k, v = linear(x, self.layer.qkv).view(len(x), 3, self.layer.heads, -1).unbind(1)
        self.keys[:, :, slot], self.values[:, :, slot] = k, v
        self.there[:, slot] = True if there is None else there
        past = slice(0, slot + 1)
        keys, values = self.keys[:, :, past], self.values[:, :, past]
        y = attend(q.unsqueeze(2), keys, values, self.there[:, past])  # (R, H, 1, E)
        return linear(y.flatten(1), self.layer.out)  # (R, W)


class HybridStep:
    """A hybrid block, frame by frame."""

    def __init__(self, block: HybridBlock, rows: int):
        self.block, self.mamba = block, MambaStep(block.globally, rows)
        self.local = None if block.local is None else LocalStep(block.local, rows)

    def __call__(self, x: Tensor, there: Tensor | None, frame: int) -> Tensor:
        """x (R, W) -> (R, W)."""
        u = self.block.norm(x)
        near = None if self.local is None else self.local(u, there, frame)
        here = None if there is None else there.unsqueeze(1)
        return x + self.block.merged(near, self.mamba(u.unsqueeze(1), here).squeeze(1))


class CrossStep:
    """Partner attention, frame by frame: a ring of the last `reach` instants.

    Contexts (C of them, k frames per instant) are persons or targets; hears (B, C): whose context
    each target listens to. All contexts are asked and masked, which copies nothing.
    """

    def __init__(self, layer: CrossAttention, hears: Tensor, per_instant: int, reach: int):
        self.layer, self.hears, self.reach, self.k = layer, hears, reach, per_instant
        heads, like = layer.heads, layer.out.weight.detach()
        contexts, slots = hears.shape[1], reach * per_instant
        shape = heads, contexts, slots, len(like) // heads
        self.keys = like.new_zeros(shape)  # (H, C, reach k, E)
        self.values = torch.zeros_like(self.keys)
        self.there = torch.zeros(contexts, slots, dtype=torch.bool, device=like.device)
        # Slot j was written (slot - j) mod reach frames ago: a window into this table.
        age = (-torch.arange(2 * reach, device=like.device)) % reach
        with torch.no_grad():
            bias = -layer.log_slope.exp()[:, None] * age.to(like.dtype)  # (H, 2 reach)
        self.bias = bias.repeat_interleave(per_instant, 1)  # (H, 2 reach k)

    def __call__(self, target: Tensor, context: Tensor, there: Tensor | None, frame: int) -> Tensor:
        """target (B, W), context (C, k, W) of this instant, there (C, k) -> (B, W)."""
        layer, k = self.layer, self.k
        rows = len(context) * k
        both = linear(layer.norm_context(context).view(rows, -1), layer.key_value)  # (C k, 2 W)
        both = both.view(len(context), k, 2, layer.heads, -1).permute(2, 3, 0, 1, 4)
        slot = frame % self.reach
        at = slice(slot * k, (slot + 1) * k)
        self.keys[:, :, at], self.values[:, :, at] = both[0], both[1]  # (H, C, k, E)
        self.there[:, at] = True if there is None else there
        q = linear(layer.norm_query(target), layer.query).view(len(target), layer.heads, -1)
        first = (self.reach - slot) * k
        bias = self.bias[:, None, first : first + self.reach * k]  # (H, 1, reach k)
        seen = (self.hears.unsqueeze(-1) & self.there).flatten(1)  # (B, C reach k)
        y = attend(
            q.transpose(0, 1),  # (H, B, E)
            self.keys.flatten(1, 2),  # (H, C reach k, E)
            self.values.flatten(1, 2),
            torch.ones_like(seen[0]),
            bias.repeat(1, 1, len(self.there)),  # (H, 1, C reach k)
            seen,
        )  # (H, B, E)
        answer = linear(y.transpose(0, 1).flatten(1), layer.out)  # (B, W)
        return torch.where(seen.any(-1, keepdim=True), answer, 0.0)


class InputStep:
    """Normalisation and projection of one stream: values (R, D), valid (R,) -> (R, d)."""

    def __init__(self, layer: StreamInput):
        self.layer = layer

    def __call__(self, values: Tensor, valid: Tensor) -> Tensor:
        x = self.layer.normalise(values.unsqueeze(1), valid.unsqueeze(1)).squeeze(1)  # (R, D)
        return torch.where(valid.unsqueeze(-1), linear(x, self.layer.project), self.layer.absent)
