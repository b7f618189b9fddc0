"""One cell of the efficiency table: a model at one size, measured in its own process.

A process of its own has nothing left from the cell before it, may run out of memory or time without
taking the others with it, and, on a CPU, gets a limit on its address space, so that it
cannot push the machine into swapping.
"""

import errno
import multiprocessing
import resource
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

QUANTITIES = {
    "parameters": "parameters",
    "gflop": "GFLOP/window",
    "training_mb": "training memory, MB/window",
    "step_ms": "training step, ms/window",
    "inference_ms": "inference, ms/window",
}
OUT_OF_MEMORY = "out of memory"
LEAST_S, MOST_CALLS = 0.5, 20  # a time is the shortest of calls that fill half a second


@dataclass(frozen=True)
class Cell:
    """What to measure. settings: canonical dict of a run; dims: feature -> dimension.

    windows: target windows at a time, of whole conversations in which everybody is a target
    """

    model: str
    frames: int
    persons: int
    windows: int
    settings: dict
    dims: dict[str, int]
    threads: int = 1
    memory_gb: float = 4.0


def measure(cell: Cell, limit_s: float) -> dict[str, float | str]:
    """QUANTITIES of a cell; from where it ran out of something, the reason instead of a number.

    Raises RuntimeError for any other failure: that is a defect, not a result.
    """
    context = multiprocessing.get_context("forkserver")
    # One import of torch serves all cells.
    context.set_forkserver_preload(["model.cost", "model.registry", "training.settings"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(asdict(cell), theirs), daemon=True)
    process.start()
    theirs.close()
    found: dict[str, float | str] = {}
    reason = f"over {limit_s:g} s"
    deadline = time.monotonic() + limit_s
    try:
        while len(found) < len(QUANTITIES) and ours.poll(max(0.0, deadline - time.monotonic())):
            key, value = ours.recv()
            if key == "defect":
                raise RuntimeError(f"{cell.model}, {cell.frames} frames, {cell.persons}: {value}")
            if key == "reason":
                reason = value
                break
            found[key] = value
    except EOFError:
        process.join()
        # The system's own killer, and crashes of libraries that cannot get memory, leave no word.
        reason = OUT_OF_MEMORY if process.exitcode == -9 else f"failed (exit {process.exitcode})"
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        ours.close()
    return {key: found.get(key, reason) for key in QUANTITIES}


def _work(given: dict, out: Connection) -> None:
    """In the cell's process: send (quantity, value) one by one, ("reason" or "defect", text)."""
    import torch

    try:
        for pair in _stages(Cell(**given)):
            out.send(pair)
    except (MemoryError, torch.OutOfMemoryError):
        out.send(("reason", OUT_OF_MEMORY))
    except Exception as e:
        word = OUT_OF_MEMORY if out_of_memory(e) else f"{type(e).__name__}: {e}"
        out.send(("reason" if word == OUT_OF_MEMORY else "defect", word))


def out_of_memory(error: Exception) -> bool:
    """Whether an error of torch or the system means that memory ran out."""
    text = str(error).lower()
    words = ("allocate memory", "not enough memory", "bad_alloc", "out of memory")
    return getattr(error, "errno", None) == errno.ENOMEM or any(w in text for w in words)


def _stages(cell: Cell):
    import torch

    from model.cost import (
        conversation,
        count_flops,
        inference,
        peak_bytes,
        seconds,
    )
    from model.registry import build
    from runtime.device import limit_threads, pick_device
    from training.settings import parse
    from training.step import training_step

    limit_threads(cell.threads)
    device = pick_device()
    if device.type == "cpu":
        _limit_memory(cell.memory_gb)
    torch.manual_seed(0)
    settings = parse(cell.settings)
    model = build(settings, cell.dims).to(device)
    yield "parameters", sum(p.numel() for p in model.parameters())
    batch = conversation(cell.dims, cell.persons, cell.windows, cell.frames, device)
    forward = inference(model, batch)
    yield "gflop", count_flops(model, forward) / cell.windows / 1e9
    yield "inference_ms", 1e3 * seconds(forward, device, LEAST_S, MOST_CALLS) / cell.windows
    step = training_step(model, settings, batch)
    step()  # gradients and optimiser state now exist, kernels are compiled
    yield "training_mb", peak_bytes(step, device) / cell.windows / 1e6
    yield "step_ms", 1e3 * seconds(step, device, LEAST_S, MOST_CALLS) / cell.windows


def _limit_memory(gigabytes: float) -> None:
    """Let this process take `gigabytes` more address space than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
