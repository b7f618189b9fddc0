"""The engine `triton`: autograd around our own GPU kernels.

Never required. Without a GPU the kernels run in Triton's interpreter (``TRITON_INTERPRET=1``),
which is how they are tested on a CPU; it is far too slow for anything else.
"""

import os
from functools import cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.scan.native import wants_gradient

PIECE = 16  # frames between two kept states
CHANNELS = 32  # channels per program: one warp
GATED_WIDTH = 128  # recurrences per program of the gated scan
MAX_STATE = 256  # the state of a program lives in registers


@cache
def available() -> bool:
    """Whether Triton can be imported."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def fits(x: Tensor, A: Tensor) -> bool:
    """Whether the kernels can run this call."""
    return x.device.type == "cuda" and A.shape[1] <= MAX_STATE and available()


def triton_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last state (B, D, N); all inputs fp32 or all float64."""
    _check(x)
    sequences = tuple(None if t is None else t.contiguous() for t in (x, dt, A, B, C, D, z, h0))
    return _TritonScan.apply(*sequences, reverse, wants_gradient(sequences))


def triton_gated(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """All states (B, L, K) of h_t = a_t h_{t-1} + b_t; a, b (B, L, K), h0 (B, K)."""
    _check(b)
    return _TritonGated.apply(a.contiguous(), b.contiguous(), h0.contiguous())


def _check(x: Tensor) -> None:
    if not available():
        raise ValueError("backend 'triton': the package triton is not installed; use 'auto'")
    if x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError("backend 'triton' needs a GPU (or TRITON_INTERPRET=1); use 'auto'")


class _TritonScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dt, A, B, C, D, z, h0, reverse, keep):
        from model.scan import triton_kernels as kernels

        batch, L, width = x.shape
        N = A.shape[1]
        start = x.new_zeros(batch, width, N) if h0 is None else h0
        checkpoints = x.new_empty(batch, -(-L // PIECE), width, N) if keep else x
        y, last = torch.empty_like(x), torch.empty_like(start)
        # An absent tensor is never read; any pointer will do.
        inputs = (x, dt, A, B, C, x if D is None else D, x if z is None else z, start)
        with torch.cuda.device_of(x):
            kernels.scan_forward[_grid(x)](
                *inputs,
                *(y, checkpoints, last, L, width, N),
                **_options(A, D, z, reverse),
                KEEP=keep,
            )
        ctx.save_for_backward(x, dt, A, B, C, D, z, checkpoints)
        ctx.reverse, ctx.has_h0 = reverse, h0 is not None
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_last):
        from model.scan import triton_kernels as kernels

        x, dt, A, B, C, D, z, checkpoints = ctx.saved_tensors
        batch, L, width = x.shape
        N = A.shape[1]
        grid = _grid(x)
        gx, gdt, gz = torch.empty_like(x), torch.empty_like(x), torch.empty_like(x)
        gA = x.new_empty(batch, width, N)
        gB = x.new_empty(grid[1], batch, L, N)
        gC, gD, gh0 = torch.empty_like(gB), x.new_empty(batch, width), torch.empty_like(gA)
        scratch = x.new_empty(batch, PIECE, width, N)  # states of one piece
        with torch.cuda.device_of(x):
            kernels.scan_backward[grid](
                *(x, dt, A, B, C, x if D is None else D, x if z is None else z, checkpoints),
                *(grad_y.contiguous(), grad_last.contiguous(), scratch),
                *(gx, gdt, gA, gB, gC, gD, gz, gh0, batch, L, width, N),
                **_options(A, D, z, ctx.reverse),
            )
        return (
            gx,
            gdt,
            gA.sum(0),
            gB.sum(0),
            gC.sum(0),
            None if D is None else gD.sum(0),
            None if z is None else gz,
            gh0 if ctx.has_h0 else None,
            None,
            None,
        )


class _TritonGated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, h0):
        from model.scan import triton_kernels as kernels

        batch, L, K = b.shape
        states = torch.empty_like(b)
        with torch.cuda.device_of(b):
            grid = (batch, -(-K // GATED_WIDTH))
            kernels.gated_forward[grid](a, b, h0, states, L, K, WIDE=GATED_WIDTH)
        ctx.save_for_backward(a, states, h0)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from model.scan import triton_kernels as kernels

        a, states, h0 = ctx.saved_tensors
        batch, L, K = a.shape
        ga, gb, gh0 = torch.empty_like(a), torch.empty_like(a), torch.empty_like(h0)
        inputs = (a, states, h0, grad.contiguous(), ga, gb, gh0)
        with torch.cuda.device_of(a):
            grid = (batch, -(-K // GATED_WIDTH))
            kernels.gated_backward[grid](*inputs, L, K, WIDE=GATED_WIDTH)
        return ga, gb, gh0


def _grid(x: Tensor) -> tuple[int, int]:
    return x.shape[0], -(-x.shape[2] // CHANNELS)


def _options(A: Tensor, D: Tensor | None, z: Tensor | None, reverse: bool) -> dict:
    states = 1 << (A.shape[1] - 1).bit_length()  # tile sizes are powers of two
    return {
        "Q": PIECE,
        "REVERSE": reverse,
        "SKIP": D is not None,
        "GATED": z is not None,
        "CHANNELS": CHANNELS,
        "STATES": states,
        "num_warps": max(1, min(16, CHANNELS * states // 512)),  # 16 states per thread
    }
