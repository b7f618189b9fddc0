"""What a model costs: parameters, FLOPs, peak memory of a training step, seconds.

FLOPs of a forward pass
    Matrix products, convolutions and attention as torch.utils.flop_counter counts them, two per
    multiply-add; recurrent cells by their products. A selective scan, whichever engine runs it:
    SCAN_FLOPS per state and frame. Other elementwise work (norms, gates, the four-tap causal
    convolution) is not counted.
Peak memory of a training step
    The most that forward, backward and optimiser step hold at one time above the start; model,
    gradients, optimiser state and the batch are there at the start. On a GPU from torch's allocator;
    on a CPU the allocations and releases that torch's profiler records, so neither the
    interpreter nor what the allocator keeps back is in it.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes to the screen otherwise

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from model.batch import Batch

# Per state and frame: dt A and its exp, (dt x) B, a h + b, C h and its sum; an exp counts as one.
SCAN_FLOPS = 7
CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def conversation(
    dims: dict[str, int], people: int, windows: int, frames: int, device: torch.device | str = "cpu"
) -> Batch:
    """Random features and labels of `windows` target windows in conversations of `people`.

    In every conversation all are targets, except in the last one, which may have some left over:
    rows are person by person, each person-window once.
    """
    rows = -(-windows // people) * people
    g = torch.Generator().manual_seed(0)
    person = torch.arange(rows)
    turn = torch.arange(1, people)
    partners = person[:, None] // people * people + (person[:, None] + turn) % people
    batch = Batch(
        {n: torch.randn(rows, frames, d, generator=g) for n, d in dims.items()},
        {n: torch.ones(rows, frames, dtype=torch.bool) for n in dims},
        torch.ones(rows, frames, dtype=torch.bool),
        person[:windows],
        partners[:windows],
        torch.rand(windows, frames, generator=g),
        torch.ones(windows, frames, dtype=torch.bool),
    )
    return batch.to(device)


class _Counter(TorchDispatchMode):
    """Adds up the FLOPs of the operators that torch's registry knows, while not `paused`."""

    def __init__(self):
        super().__init__()
        self.flops, self.paused = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        known = flop_registry.get(func._overloadpacket)
        if self.paused:
            return out
        if known is not None:
            self.flops += known(*args, **kwargs, out_val=out)
        elif func._overloadpacket is CPU_ATTENTION:  # missing in the registry
            self.flops += sdpa_flop_count(*(t.shape for t in args[:3]))
        return out


def count_flops(model: nn.Module, run: Callable[[], object]) -> int:
    """FLOPs of `run()`, a forward pass of the model: see the rule above."""
    counter = _Counter()

    def scan(block: nn.Module):
        def hook(module, given):
            counter.flops += SCAN_FLOPS * given[0].shape[:-1].numel() * block.A_log.numel()

        return hook

    def pause(module, given):
        counter.paused += 1

    def recurrent(module, given, out):
        counter.paused -= 1
        frames = given[0].shape[:-1].numel()
        weights = sum(w.numel() for n, w in module.named_parameters() if n.startswith("weight"))
        counter.flops += 2 * frames * weights

    hooks = []
    for module in model.modules():
        if hasattr(module, "A_log") and hasattr(module, "x_proj"):
            # Every scan of a block begins with one call of its x_proj, (.., D).
            hooks.append(module.x_proj.register_forward_pre_hook(scan(module)))
        elif isinstance(module, nn.RNNBase):
            hooks.append(module.register_forward_pre_hook(pause))
            hooks.append(module.register_forward_hook(recurrent))
    try:
        with _scans_uncounted(counter), counter:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return counter.flops


@contextmanager
def _scans_uncounted(counter: _Counter) -> Iterator[None]:
    """Nothing inside an autograd.Function counts: those are the scans, counted by their rule."""
    original = torch.autograd.Function.__dict__["apply"]

    def apply(kind, *args, **kwargs):
        counter.paused += 1
        try:
            return original.__get__(None, kind)(*args, **kwargs)
        finally:
            counter.paused -= 1

    torch.autograd.Function.apply = classmethod(apply)
    try:
        yield
    finally:
        torch.autograd.Function.apply = original


def peak_bytes(run: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Most bytes that `run()` holds at one time above what there is at its start."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - start
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def seconds(
    run: Callable[[], object], device: torch.device | str, least: float, most: int
) -> float:
    """Shortest of several calls of `run()`: until `least` seconds have passed, at most `most`."""
    times: list[float] = []
    while len(times) < most and sum(times) < least:
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def inference(model: nn.Module, batch: Batch) -> Callable[[], None]:
    """One forward pass without gradients, in evaluation mode, as a function."""

    @torch.no_grad()
    def run() -> None:
        model.eval()
        model(batch)

    return run
