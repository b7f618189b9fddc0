"""Data-parallel training: several processes of `torchrun`, one global batch.

Every process holds the model and computes a share of each batch's windows. Losses are those of the
global batch (model.layers.global_batch); with gradients averaged over processes
(`average_gradients`) each process then has exactly the gradient of the one-process batch.

Every call here is collective: all processes make it, in the same order. Without torchrun there is
one process and nothing to do.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.layers.global_batch import size, total

TIMEOUT = timedelta(minutes=30)  # the first to come waits for the slowest reader


def rank() -> int:
    """Number of this process; 0 writes the files."""
    return dist.get_rank() if size() > 1 else 0


def launched_rank() -> int:
    """`rank`, known before the processes have met."""
    return int(os.environ["RANK"]) if "LOCAL_RANK" in os.environ else 0


@contextmanager
def processes() -> Iterator[None]:
    """Join the other processes of torchrun, if it started this one.

    nccl where every process has a GPU of its own, else gloo.
    """
    if "LOCAL_RANK" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    gpus, local = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
    if gpus:
        torch.cuda.set_device(local % gpus)
    own = gpus >= int(os.environ["LOCAL_WORLD_SIZE"])
    dist.init_process_group("nccl" if own else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over processes, in one exchange.

    A parameter that a process did not use counts as 0 there; one that no process used keeps None.
    """
    if size() == 1:
        return
    chosen = [p for p in parameters if p.requires_grad]
    used = torch.tensor([float(p.grad is not None) for p in chosen], device=chosen[0].device)
    parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in chosen]
    flat = torch.cat([*parts, used.to(parts[0].dtype)])  # (all parameters + 1 each,)
    dist.all_reduce(flat)
    *gradients, used = flat.split([*(p.numel() for p in chosen), len(chosen)])
    for parameter, gradient, uses in zip(chosen, gradients, used.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) / size() if uses else None


def weight_of_share(windows: int) -> float:
    """What this process's loss counts: its windows over the mean number of windows.

    Losses from `total` do not feel it; plain means over windows become the mean of all windows.
    """
    if size() == 1:
        return 1.0
    counts = torch.tensor(float(windows), device=_device())
    return windows * size() / float(total(counts))


def average(values: Tensor) -> Tensor:
    """Mean over processes, without gradient."""
    return total(values.detach()) / size()


def gather(value: Any) -> list[Any]:
    """The value of every process, by rank; anything that pickles."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def first_says(value: bool) -> bool:
    """What the first process says (clocks differ)."""
    if size() == 1:
        return value
    said = torch.tensor(int(value), device=_device())
    dist.broadcast(said, 0)
    return bool(said)


def _device() -> torch.device:
    """Where small messages must lie: on the GPU for nccl."""
    nccl = size() > 1 and dist.get_backend() == "nccl"
    return torch.device("cuda" if nccl else "cpu")


def shares(keys: np.ndarray, count: int) -> list[slice]:
    """Cut a batch into `count` parts, about equally large; keys (n,): equal neighbours stay together.

    Only where there are fewer groups of equal keys than parts, a group is cut; n must be at least
    `count`.
    """
    n = len(keys)
    borders = [0, *(np.flatnonzero(np.diff(keys)) + 1).tolist(), n]
    if len(borders) <= count:
        borders = list(range(n + 1))
    cuts, at = [0], 0
    for part in range(1, count):
        last = len(borders) - 1 - (count - part)  # leave one group for each part that follows
        at = min(range(at + 1, last + 1), key=lambda i: abs(borders[i] * count - part * n))
        cuts.append(borders[at])
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], n], strict=True)]
