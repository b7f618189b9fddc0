"""Layers of Coupled Mamba: one mixer per stream, and what passes between the streams.

Glossary (code name: meaning)
    stream: one modality group of one participant   slot: a participant of a window, the target
    first, then its partners   S: slots   K: modality groups   M = S K streams
    share: pi   leak: alpha (model.layers.coupled_scan)
Sizes in shape comments: B windows, L frames, W width, D inner width, N states

Participants share the mixers: the weights of a stream belong to its modality group. Streams lie
slot by slot, group by group: (B, S, L, W) per group, (B, S K, L, ...) inside the scan.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers.coupled_scan import coupled_scan
from model.layers.mamba import MambaBlock


class Shares(nn.Module):
    """Each stream's share of the sum state, renormalised over the streams that are present.

    Fixed: 1 / (number of streams present). Learned: a softmax of one weight per group and role, so
    that the order of partners does not matter.
    """

    def __init__(self, groups: int, roles: int, learned: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(roles, groups)) if learned else None

    def forward(self, present: Tensor, dtype: torch.dtype) -> Tensor:
        """present (B, S, K, L) bool -> (B, S, K, L), summing to 1 over (S, K), or all 0."""
        slots, device = present.shape[1], present.device
        raw = torch.ones(present.shape[1:3], dtype=dtype, device=device)  # (S, K)
        if self.weight is not None:
            role = torch.arange(slots, device=device).clamp(max=1)  # (S,): target, then partners
            # Against the largest weight: a shift changes no share and keeps exp in range.
            raw = torch.exp(self.weight - self.weight.max())[role]  # (S, K)
        kept = torch.where(present, raw[:, :, None], 0.0)  # (B, S, K, L)
        return kept / kept.sum((1, 2), keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)


class StateCoupling(nn.Module):
    """Mamba mixers whose states read their common sum; the time direction is the caller's.

    mixers : group -> MambaBlock, with the weights of a plain Mamba block
    leaky : learned alpha and pi; else alpha = 1 and pi = 1 / M
    """

    def __init__(self, mixers: dict[str, MambaBlock], roles: int, leaky: bool):
        super().__init__()
        self.mixers = nn.ModuleDict(mixers)
        self.share = Shares(len(mixers), roles, leaky)
        # sigmoid(0) = 1/2: a stream starts with as much memory of its own as of the others'.
        self.leak = nn.Parameter(torch.zeros(())) if leaky else None

    def forward(
        self, streams: dict[str, Tensor], frames: Tensor, present: Tensor
    ) -> dict[str, Tensor]:
        """group -> (B, S, L, W), frames (B, S, L), present (B, S, K, L) -> group -> (B, S, L, W).

        An absent stream adds nothing to the sum but still reads it.
        """
        mask = frames.flatten(0, 1).unsqueeze(-1)  # (B S, L, 1)
        gathered = []
        for group, x in streams.items():
            mixer = self.mixers[group]
            u, z = mixer.in_proj(x.flatten(0, 1) * mask).chunk(2, dim=-1)  # (B S, L, D) each
            u = F.silu(causal_convolution(mixer, u)) * mask  # (B S, L, D)
            rank, N = mixer.dt_rank, mixer.d_state
            dt, B, C = mixer.x_proj(u).split([rank, N, N], dim=-1)  # (B S, L, rank | N)
            dt = mixer.step_size(dt)  # (B S, L, D)
            gathered.append([t.unflatten(0, frames.shape[:2]) for t in (u, dt, B, C, z)])
        # (B, S, L, .) per group -> (B, S K, L, .)
        u, dt, B, C, z = (torch.stack(t, 2).flatten(1, 2) for t in zip(*gathered, strict=True))
        slots = frames.shape[1]
        A = torch.stack([-torch.exp(m.A_log) for m in self.mixers.values()])  # (K, D, N)
        skip = torch.stack([m.D for m in self.mixers.values()])  # (K, D)
        y = coupled_scan(
            u * present.flatten(1, 2).unsqueeze(-1),
            dt,
            A.repeat(slots, 1, 1),
            B,
            C,
            self.share(present, A.dtype).flatten(1, 2),
            None if self.leak is None else torch.sigmoid(self.leak),
        )  # (B, S K, L, D)
        y = (y + skip.repeat(slots, 1).unsqueeze(1) * u) * F.silu(z)  # (B, S K, L, D)
        parts = y.unflatten(1, (slots, len(streams))).unbind(2)  # K times (B, S, L, D)
        return {
            group: self.mixers[group].out_proj(part)
            for group, part in zip(streams, parts, strict=True)
        }


class Independent(nn.Module):
    """A plain Mamba block per group: nothing passes between streams. As `StateCoupling`."""

    def __init__(self, mixers: dict[str, MambaBlock]):
        super().__init__()
        self.mixers = nn.ModuleDict(mixers)

    def forward(
        self, streams: dict[str, Tensor], frames: Tensor, present: Tensor
    ) -> dict[str, Tensor]:
        """As `StateCoupling.forward`."""
        mask = frames.flatten(0, 1)  # (B S, L)
        return {
            group: self.mixers[group](x.flatten(0, 1), mask).unflatten(0, frames.shape[:2])
            for group, x in streams.items()
        }


class TwoDirections(nn.Module):
    """Two couplings of equal kind, one per time direction, added."""

    def __init__(self, ahead: nn.Module, back: nn.Module):
        super().__init__()
        self.ahead, self.back = ahead, back

    def forward(
        self, streams: dict[str, Tensor], frames: Tensor, present: Tensor
    ) -> dict[str, Tensor]:
        """As `StateCoupling.forward`."""
        turned = {group: x.flip(2) for group, x in streams.items()}
        back = self.back(turned, frames.flip(2), present.flip(3))
        ahead = self.ahead(streams, frames, present)
        return {group: x + back[group].flip(2) for group, x in ahead.items()}


class FeatureCoupling(nn.Module):
    """Between layers, every stream adds a linear map of the others: e^a = o^a + W_a [o^v; o^t].

    This is the coupling that the paper's published code contains. W_a [o^v; o^t] is written as a
    sum of one map per source, so that any number of streams fits; partners enter as the mean over
    those present, absent streams as nothing.
    """

    def __init__(self, groups: list[str], width: int, roles: int):
        super().__init__()
        sources = {g: [("own", other) for other in groups if other != g] for g in groups}
        if roles > 1:
            for g in groups:
                sources[g] += [("other", source) for source in groups]
        self.maps = nn.ModuleDict(
            {
                g: nn.ModuleDict({f"{who}_{s}": nn.Linear(width, width) for who, s in pairs})
                for g, pairs in sources.items()
            }
        )

    def forward(self, streams: dict[str, Tensor], present: Tensor) -> dict[str, Tensor]:
        """group -> (B, S, L, W), present (B, S, K, L) -> group -> (B, S, L, W)."""
        there = present.unsqueeze(-1)  # (B, S, K, L, 1)
        coupled = {}
        for g, x in streams.items():
            for k, (source, o) in enumerate(streams.items()):
                here = there[:, :, k]  # (B, S, L, 1)
                if f"own_{source}" in self.maps[g]:
                    x = x + self.maps[g][f"own_{source}"](o) * here
                if f"other_{source}" in self.maps[g] and o.shape[1] > 1:
                    kept = torch.where(here, o, 0.0)  # (B, S, L, W)
                    others = kept.sum(1, keepdim=True) - kept  # (B, S, L, W)
                    count = here.sum(1, keepdim=True) - here.long()  # (B, S, L, 1)
                    mean = others / count.clamp(min=1)
                    x = x + self.maps[g][f"other_{source}"](mean) * (count > 0)
            coupled[g] = x
        return coupled


def causal_convolution(mixer: MambaBlock, u: Tensor) -> Tensor:
    """The mixer's depthwise convolution: (R, L, D) -> (R, L, D), a sum of shifted products."""
    L, taps = u.shape[1], mixer.d_conv
    padded = F.pad(u, (0, 0, taps - 1, 0))  # (R, L + taps - 1, D)
    y = mixer.conv1d.bias  # (D,)
    for k in range(taps):
        y = torch.addcmul(y, padded[:, k : k + L], mixer.conv1d.weight[:, 0, k])
    return y  # (R, L, D)
