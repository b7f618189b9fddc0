"""The Mamba-1 block, with the parameter names and shapes of mamba_ssm.

Glossary (code name: meaning, arXiv 2312.00752 fig. 3)
    d_model: width of the residual stream   d_inner: expand * d_model   d_state: N
    d_conv: width of the causal convolution   dt_rank: rank of the Delta projection
    in_proj: x and gate z   conv1d: causal depthwise convolution   x_proj: x -> (dt, B, C)
    dt_proj: dt -> Delta   A_log: log(-A)   D: skip   out_proj: back to d_model
State dicts interchange with mamba_ssm.Mamba, transformers' MambaMixer and mambapy's MambaBlock.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.scan import selective_scan


@dataclass(frozen=True)
class MambaState:
    """What a Mamba block remembers of the frames so far; updated in place, its size never changes.

    tail : (B, d_conv - 1, d_inner) last inputs of the convolution; h : (B, d_inner, N) state
    """

    tail: Tensor
    h: Tensor


Memory = dict[nn.Module, MambaState]  # of every Mamba block of a model, while it runs in pieces


def mix(
    mixer: nn.Module,
    x: Tensor,
    mask: Tensor,
    memory: Memory | None,
    count: Tensor | None = None,
) -> Tensor:
    """mixer(x, mask); with a memory, going on where the last piece of frames ended."""
    return mixer(x, mask) if memory is None else mixer(x, mask, memory[mixer], count)


class MambaBlock(nn.Module):
    """One Mamba-1 mixer: (B, L, d_model) -> (B, L, d_model); no norm, no residual inside.

    `dt_min` and `dt_max` bound the initial step Delta; `backend` is passed to `selective_scan`;
    `dt_rank` 0 is d_model / 16, rounded up.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        backend: str = "auto",
        dt_rank: int = 0,
    ):
        super().__init__()
        d_inner = expand * d_model
        self.d_state, self.d_conv = d_state, d_conv
        self.dt_rank = dt_rank or math.ceil(d_model / 16)
        self.backend = backend
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, d_inner)
        self.A_log = nn.Parameter(
            torch.log(torch.arange(1, d_state + 1, dtype=torch.float32)).repeat(d_inner, 1)
        )
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self._init_dt(dt_min, dt_max)

    @torch.no_grad()
    def _init_dt(self, dt_min: float, dt_max: float, floor: float = 1e-4) -> None:
        # softplus(bias) is log-uniform in [dt_min, dt_max]: time constants from 10 to 1000 frames.
        bound = self.dt_rank**-0.5
        self.dt_proj.weight.uniform_(-bound, bound)
        spread = math.log(dt_max) - math.log(dt_min)
        dt = torch.exp(torch.rand(self.D.shape) * spread + math.log(dt_min)).clamp(min=floor)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def start(self, sequences: int) -> MambaState:
        """The state before the first frame of `sequences` sequences."""
        width, like = len(self.D), self.D.detach()
        state_dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return MambaState(
            like.new_zeros(sequences, self.d_conv - 1, width),
            like.new_zeros(sequences, width, self.d_state, dtype=state_dtype),
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: MambaState | None = None,
        count: Tensor | None = None,
    ) -> Tensor:
        """x (B, L, d_model); mask (B, L), true where there is a frame.

        A masked run of frames at either end is removed exactly: the convolution sees its own zero
        padding there and the state stays zero. Inside a sequence, masked frames feed nothing in.

        With a state, x goes on where the state stands, and the state follows it. count (B,): the
        mask is true for just so many frames from the first, and the state stops behind them, as if
        the others were not there.
        """
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (B, L, d_inner) each
        u = F.silu(self._conv(u, state, count))  # (B, L, d_inner)
        if mask is not None:
            u = u * mask.unsqueeze(-1)
        dt, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        dt = self.step_size(dt)  # (B, L, d_inner)
        if count is not None:
            dt = dt * mask.unsqueeze(-1)  # no time passes where there is no frame
        fine = torch.promote_types(self.A_log.dtype, torch.float32)
        A = -torch.exp(self.A_log.to(fine))  # (d_inner, N)
        if state is None:
            y = selective_scan(u, dt, A, B, C, self.D, z, backend=self.backend)  # (B, L, d_inner)
        else:
            y, h = selective_scan(
                u, dt, A, B, C, self.D, z, state.h, return_state=True, backend=self.backend
            )  # (B, L, d_inner), (B, d_inner, N)
            state.h.copy_(h)
        return self.out_proj(y)  # (B, L, d_model)

    def step_size(self, dt: Tensor) -> Tensor:
        """Low-rank (B, L, dt_rank) -> Delta (B, L, d_inner), not in bf16 (model.precision)."""
        with torch.autocast(dt.device.type, enabled=False):
            return F.softplus(self.dt_proj(dt.to(self.dt_proj.weight.dtype)))

    def _conv(self, u: Tensor, state: MambaState | None, count: Tensor | None) -> Tensor:
        """Causal depthwise convolution, (B, L, d_inner) -> same: a sum of shifted products."""
        L, before = u.shape[1], self.d_conv - 1
        if state is None:
            padded = F.pad(u, (0, 0, before, 0))  # (B, L + d_conv - 1, d_inner)
        else:
            padded = torch.cat([state.tail, u], dim=1)  # (B, L + d_conv - 1, d_inner)
            tail = padded[:, L:]
            if count is not None:
                last = count[:, None] + torch.arange(before, device=u.device)  # (B, d_conv - 1)
                tail = padded.gather(1, last.unsqueeze(-1).expand(-1, -1, u.shape[2]))
            state.tail.copy_(tail)
        y = self.conv1d.bias  # (d_inner,)
        for k in range(self.d_conv):
            y = torch.addcmul(y, padded[:, k : k + L], self.conv1d.weight[:, 0, k])
        return y  # (B, L, d_inner)


class BiMambaBlock(nn.Module):
    """Two Mamba blocks, one per time direction, added: (B, L, d_model) -> (B, L, d_model).

    The predicted frames lie in the middle of a window; a causal block never shows them the frames
    that follow.
    """

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.ahead = MambaBlock(*args, **kwargs)
        self.back = MambaBlock(*args, **kwargs)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As `MambaBlock.forward`."""
        back = self.back(x.flip(1), None if mask is None else mask.flip(1)).flip(1)
        return self.ahead(x, mask) + back
