"""Seconds of a call: medians after a warm-up, by CUDA events on a GPU, by the clock elsewhere."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timed:
    """first: seconds of the first call, with compilation. median: of `calls` further ones."""

    first: float
    median: float
    calls: int


def wait(device: str) -> None:
    """Until the device has done everything it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def clock(run: Callable[[], object], device: str) -> float:
    """Seconds of one call, until the device has finished."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def median_seconds(
    runs: list[Callable[[], object]], device: str, least_s: float = 0.4, most: int = 60
) -> Timed:
    """Time calls that take turns (one per set of inputs) until `least_s` seconds, at least 3.

    On a GPU the calls follow each other without waiting, each between two events: the time to
    launch a call shows where, and only where, the card has to wait for it.
    """
    first = clock(runs[0], device)
    for run in runs[1:]:
        run()
    calls = max(3, min(most, round(least_s / max(1e-9, clock(runs[0], device)))))
    turns = [runs[i % len(runs)] for i in range(calls)]
    if device != "cuda":
        return Timed(first, statistics.median(clock(run, device) for run in turns), calls)
    events = []
    for run in turns:
        ends = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        ends[0].record()
        run()
        ends[1].record()
        events.append(ends)
    torch.cuda.synchronize()
    return Timed(first, statistics.median(a.elapsed_time(b) for a, b in events) / 1e3, calls)


def peak_megabytes(run: Callable[[], object], device: str) -> float | None:
    """Most that `run()` holds at one time above what there is at its start; None on a CPU."""
    if device != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6
