"""The engine `native`: autograd around the compiled kernels, and their threads.

The kernels are compiled at their first use (about two seconds per number type) and kept in
`__pycache__`, or, where that cannot be written, in numba's folder in the user's cache; where there
is neither, every process compiles once for itself.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 16  # frames between two kept states: as much memory as x at N = 16
LEAST_TASKS = 16  # tasks a call is cut into, so that one long sequence uses all cores
SERIAL_WORK = 1 << 18  # state updates (or gated values) below which threads only cost


@cache
def available() -> bool:
    """Whether the compiler can be imported."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def native_scan(
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
    """y (B, L, D) and the last state (B, D, N); all inputs fp32 or all float64, on the CPU."""
    tensors = (x, dt, A, B, C, D, z, h0)
    return _NativeScan.apply(*tensors, reverse, wants_gradient(tensors))


def wants_gradient(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether a backward pass can follow (inside a Function the gradient mode is always off)."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def native_gated(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """All states (B, L, K) of h_t = a_t h_{t-1} + b_t; a, b (B, L, K), h0 (B, K)."""
    return _NativeGated.apply(a.contiguous(), b.contiguous(), h0.contiguous())


class _NativeScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dt, A, B, C, D, z, h0, reverse, keep):
        from model.scan import native_kernels as kernels

        width = kernels.WIDTH
        batch, L, channels = x.shape
        N = A.shape[1]
        call = _Call(x, dt, A, B, C, D, z, reverse, width)
        states = x.new_zeros(batch, call.blocks, N, width) if h0 is None else _blocked(h0, width)
        pieces = -(-L // PIECE)
        shape = (batch, pieces, call.blocks, N, width) if keep else (0,)
        checkpoints = x.new_empty(shape)
        y = x.new_empty(batch, L, call.blocks * width)
        arrays = (*call.arrays, _flat(states), _flat(checkpoints), _flat(y))
        kernel = kernels.scan_forward_32 if x.dtype == torch.float32 else kernels.scan_forward_64
        _run(kernel, arrays, call.sizes(keep), call.tasks, x.numel() * N)
        ctx.save_for_backward(x, dt, A, B, C, D, z, checkpoints)
        ctx.reverse, ctx.has_h0 = reverse, h0 is not None
        return y[..., :channels], _unblocked(states, channels)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_state):
        from model.scan import native_kernels as kernels

        x, dt, A, B, C, D, z, checkpoints = ctx.saved_tensors
        width = kernels.WIDTH
        batch, L, channels = x.shape
        N = A.shape[1]
        call = _Call(x, dt, A, B, C, D, z, ctx.reverse, width)
        gy = _padded(grad_y, width).contiguous()  # (B, L, blocks * width)
        carry = _blocked(grad_state, width)  # (B, blocks, N, width)
        gx, gdt = torch.empty_like(gy), torch.empty_like(gy)
        gz = torch.empty_like(gy) if z is not None else gy.new_empty(0)
        gA = torch.zeros_like(carry)  # per batch row
        gB = gy.new_empty(call.groups, batch, L, N)  # per group of blocks
        gC = torch.empty_like(gB)
        gD = gy.new_zeros(batch, call.blocks * width if D is not None else 0)
        grads = (checkpoints, gy, carry, gx, gdt, gA, gB, gC, gD, gz)
        arrays = (*call.arrays, *map(_flat, grads))
        kernel = kernels.scan_backward_32 if x.dtype == torch.float32 else kernels.scan_backward_64
        _run(kernel, arrays, call.sizes(True), call.tasks, x.numel() * N)
        return (
            gx[..., :channels],
            gdt[..., :channels],
            _unblocked(gA.sum(0, keepdim=True), channels)[0],
            gB[0] if call.groups == 1 else gB.sum(0),
            gC[0] if call.groups == 1 else gC.sum(0),
            None if D is None else gD.sum(0)[:channels],
            None if z is None else gz[..., :channels],
            _unblocked(carry, channels) if ctx.has_h0 else None,
            None,
            None,
        )


class _Call:
    """Arrays and sizes that the forward and the backward kernel share."""

    def __init__(self, x, dt, A, B, C, D, z, reverse: bool, width: int):
        batch, L, channels = x.shape
        N = A.shape[1]
        self.blocks = -(-channels // width)
        # By shape alone, never by the number of threads: the same bytes on every machine size.
        self.groups = min(self.blocks, -(-LEAST_TASKS // max(1, batch)))
        self.tasks = batch * self.groups
        none = x.new_empty(0)
        sequences = [_rows(_padded(s, width)) for s in (x, dt)]
        sequences += [_rows(s) for s in (B, C)]
        sequences.append((_flat(none), 0, 0) if z is None else _rows(_padded(z, width)))
        x_, dt_, B_, C_, z_ = (s[0] for s in sequences)
        skip = _flat(none if D is None else _padded(D, width).contiguous())
        self.arrays = (x_, dt_, _flat(_blocked(A.unsqueeze(0), width)), B_, C_, skip, z_)
        strides = [stride for s in sequences for stride in s[1:]]
        self._sizes = (self.groups, self.blocks, L, N, PIECE, int(reverse), *strides)
        self._flags = (int(z is not None), int(D is not None))

    def sizes(self, keep: bool) -> tuple[int, ...]:
        """What the kernels call `sizes`, without the range of tasks."""
        return (*self._sizes, *self._flags, int(keep))


def _padded(t: Tensor, width: int) -> Tensor:
    """Channels (last) filled up with zeros to whole blocks."""
    rest = -t.shape[-1] % width
    return F.pad(t, (0, rest)) if rest else t


def _blocked(state: Tensor, width: int) -> Tensor:
    """(B, D, N) -> a new (B, blocks, N, width)."""
    padded = _padded(state.detach().transpose(1, 2), width)  # (B, N, blocks * width)
    batch, N, _ = padded.shape
    blocked = padded.reshape(batch, N, -1, width).transpose(1, 2)
    return blocked.clone(memory_format=torch.contiguous_format)


def _unblocked(state: Tensor, channels: int) -> Tensor:
    """(B, blocks, N, width) -> (B, D, N)."""
    batch, _, N, _ = state.shape
    return state.transpose(1, 2).reshape(batch, N, -1)[..., :channels].transpose(1, 2).contiguous()


def _flat(t: Tensor) -> np.ndarray:
    return t.detach().view(-1).numpy()


def _rows(t: Tensor) -> tuple[np.ndarray, int, int]:
    """(B, L, K) as a flat array with the strides of B and L; copied only if K is not contiguous."""
    if t.stride(2) != 1 and t.shape[2] > 1:
        t = t.contiguous()
    span = 1 + sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    flat = t.detach().as_strided((span,), (1,), t.storage_offset())
    return flat.numpy(), t.stride(0), t.stride(1)


class _NativeGated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, h0):
        from model.scan import gated_kernels as kernels

        states = torch.empty_like(b)  # (B, L, K)
        kernel = kernels.gated_forward_32 if a.dtype == torch.float32 else kernels.gated_forward_64
        _run_gated(kernel, (a, b, h0, states))
        ctx.save_for_backward(a, states, h0)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        from model.scan import gated_kernels as kernels

        a, states, h0 = ctx.saved_tensors
        ga, gb = torch.empty_like(a), torch.empty_like(a)
        carry = torch.zeros_like(h0)
        double = a.dtype == torch.float64
        kernel = kernels.gated_backward_64 if double else kernels.gated_backward_32
        _run_gated(kernel, (a, states, h0, grad.contiguous(), ga, gb, carry))
        return ga, gb, carry


def _run_gated(kernel: Callable, tensors: tuple[Tensor, ...]) -> None:
    batch, L, K = tensors[0].shape
    strips = max(1, min(-(-K // 64), -(-LEAST_TASKS // max(1, batch))))
    arrays = tuple(map(_flat, tensors))
    _run(kernel, arrays, (strips, L, K), batch * strips, tensors[0].numel())


def _run(kernel: Callable, arrays: tuple, sizes: tuple, tasks: int, work: int) -> None:
    """Give the tasks to as many threads as torch may use; each writes to places of its own."""
    threads = min(torch.get_num_threads(), tasks)
    if threads <= 1 or work < SERIAL_WORK:
        kernel(arrays, (0, tasks, *sizes))
        return
    # A few ranges per thread: a core that is held up does not hold up the others.
    ranges = min(tasks, 4 * threads)
    bounds = [tasks * i // ranges for i in range(ranges + 1)]
    todo = iter(list(zip(bounds[:-1], bounds[1:], strict=True)))

    def work_off() -> None:
        for first, last in todo:
            kernel(arrays, (first, last, *sizes))

    others = [_pool(threads - 1).submit(work_off) for _ in range(threads - 1)]
    work_off()
    for other in others:
        other.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
