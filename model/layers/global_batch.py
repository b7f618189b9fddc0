"""Sums and means over the global batch, when several processes hold a share of it each.

Losses that are means over the batch are sums over all processes (`total`, `mean`), so that each
process has the loss of the global batch, not of its share: a CCC is no mean of CCCs. `total` is
differentiable and its adjoint is again a sum over processes. Every call is collective: all processes
make it, in the same order. One process alone has nothing to exchange.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

_alone = False


def size() -> int:
    """Number of processes."""
    together = dist.is_available() and dist.is_initialized() and not _alone
    return dist.get_world_size() if together else 1


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process is the only one: for work that processes do in unequal pieces."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x.clone()
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        back = gradient.clone()
        dist.all_reduce(back)
        return back


def total(x: Tensor) -> Tensor:
    """Sum over processes, elementwise; differentiable."""
    return _Total.apply(x) if size() > 1 else x


def mean(values: Tensor, counts: Tensor) -> Tensor:
    """Sum of values over the number of those that count, over all processes; 0 where none does.

    values : (...) sum over this process's share, zero where nothing counts; counts : (...) how many
    """
    both = total(torch.stack([values, counts.to(values.dtype)]))  # (2, ...)
    return both[0] / both[1].clamp(min=1)
