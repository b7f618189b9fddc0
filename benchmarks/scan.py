"""Every scan engine beside a plain autograd loop and other packages: time and peak memory.

python -m benchmarks.scan --threads 2 [--batch 128 --length 96 --width 512 --state 16]
python -m benchmarks.scan --threads 2 --batch 1 --length 30000 --forward

python -m benchmarks.scan --device cuda --gate

Rows: `reference` is the fair baseline, a loop over unbind(1) (slicing x[:, t] inside the loop makes
its backward pass quadratic); then our engines; on the CPU mambapy's parallel scan and the scan of
transformers without compiled kernels, on a GPU the compiled scan of mamba_ssm where it is there. Each row is measured in a process of its own: seconds are the best of
`--repeats`, memory is the peak during the first full run above what the process held with its inputs in
place (gradients count, libraries and compiled code do not): of the resident set, on a GPU of torch's
allocator. `of copy` is the memory bandwidth that a row reaches (`least_bytes` over its time) as a
share of what a large copy reaches in the same run. `mamba_ssm` is the speed against that package.
All rows must produce the same checksums, or the benchmark fails.
"""

import argparse
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from model.scan import selective_scan, triton_engine
from model.scan.compiled_cuda import compiled_scan
from runtime import InputError
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job
from runtime.torchvision_cpu import allow_torchvision_without_cuda

ENGINES = ("reference", "torch", "native", "triton", "mamba_ssm")
ROWS = {
    "cpu": ("reference", "torch", "native", "mambapy", "transformers"),
    "cuda": ("reference", "torch", "triton", "mamba_ssm"),
}
COPY = "copy"
ALL_ROWS = tuple(dict.fromkeys([*ROWS["cpu"], *ROWS["cuda"]]))
COPY_MB = 256
INNER = 10  # runs between two CUDA events: the time to launch one does not show


def scan_of(row: str) -> Callable:
    """A function of x, dt, A, B, C, D, z (shapes of `selective_scan`; D and z may be None) -> y."""
    if row in ENGINES:
        return lambda *tensors: selective_scan(*tensors, backend=row)
    plain = mambapy_scan() if row == "mambapy" else transformers_scan()

    def run(x, dt, A, B, C, D, z):
        y = plain(x, dt, A, B, C)
        y = y if D is None else y + D * x
        return y if z is None else y * torch.nn.functional.silu(z)

    return run


def mambapy_scan() -> Callable:
    """As in the MambaBlock.selective_scan of mambapy."""
    from mambapy.pscan import pscan

    def run(x, dt, A, B, C):
        decay = torch.exp(dt.unsqueeze(-1) * A)  # (B, L, D, N)
        states = pscan(decay, dt.unsqueeze(-1) * B.unsqueeze(2) * x.unsqueeze(-1))
        return (states @ C.unsqueeze(-1)).squeeze(3)

    return run


def transformers_scan() -> Callable:
    """The scan of transformers without compiled kernels."""
    allow_torchvision_without_cuda()
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    def run(x, dt, A, B, C):
        y = mamba_selective_scan(*(t.mT for t in (x, dt)), A, B.mT, C.mT)
        return (y[0] if isinstance(y, tuple) else y).mT

    return run


def rows_of(device: str, wanted: list[str] | None) -> tuple[list[str], list[str]]:
    """Rows to measure, and those left out because their package is not there.

    Raises InputError for a row that this device or installation cannot run, and without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here", "run it where there is one")
    found = {"triton": triton_engine.available, "mamba_ssm": lambda: bool(compiled_scan())}
    rows, absent = [], []
    for row in wanted or ROWS[device]:
        if row not in ROWS[device]:
            raise InputError(
                f"--rows {row} does not run on {device}", f"choose from {', '.join(ROWS[device])}"
            )
        (rows if found.get(row, lambda: True)() else absent).append(row)
    if wanted and absent:
        raise InputError(f"--rows {absent[0]}: it is not installed", "install it, or leave it out")
    return rows, absent


def inputs(
    batch: int,
    length: int,
    width: int,
    state: int,
    gate: bool = False,
    device: str = "cpu",
    seed: int = 0,
) -> list[torch.Tensor | None]:
    """x, dt, A, B, C as at the start of training, then D and z, or None without `gate`."""
    g = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(batch, length, width, generator=g),
        torch.rand(batch, length, width, generator=g) * 0.1,
        -torch.arange(1.0, state + 1).repeat(width, 1),
        torch.randn(batch, length, state, generator=g),
        torch.randn(batch, length, state, generator=g),
    ]
    if gate:
        tensors += [torch.ones(width), torch.randn(batch, length, width, generator=g)]
    return [*(t.to(device) for t in tensors), *([] if gate else [None, None])]


def least_bytes(shape: tuple[int, int, int, int], forward: bool, gate: bool) -> int:
    """Bytes that any fp32 scan must move: every sequence read or written once.

    Forward: x, dt, B, C (and z) in, y out. Backward: x, dt, B, C (and z) and the gradient of y in,
    the gradients of x, dt, B, C (and z) out. A, D and kept states do not count.
    """
    batch, length, width, state = shape
    wide, narrow = (3 + gate, 2) if forward else (3 + gate + 5 + 2 * gate, 2 + 4)
    return 4 * batch * length * (wide * width + narrow * state)


def seconds_of(run: Callable[[], object], device: str, repeats: int) -> float:
    """Best time of `repeats`; on a GPU by CUDA events around `INNER` runs in a row."""
    times = []
    for _ in range(repeats):
        if device == "cuda":
            ends = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            ends[0].record()
            for _ in range(INNER):
                run()
            ends[1].record()
            ends[1].synchronize()
            times.append(ends[0].elapsed_time(ends[1]) / 1e3 / INNER)
        else:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return min(times)


def copy_rate(device: str, repeats: int, megabytes: int = COPY_MB) -> float:
    """Bytes per second of a large copy, read and write counted: the bandwidth there is."""
    source = torch.ones(megabytes * 250_000, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device, max(5, repeats))


def resident(field: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM the peak since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1e3
    raise OSError(f"no {field} in /proc/self/status")


def first_run(run: Callable[[], torch.Tensor], device: str) -> tuple[torch.Tensor, float]:
    """Result of `run` and its peak megabytes above what is held now."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        y = run()
        torch.cuda.synchronize()
        return y, (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    before = resident("VmRSS")
    y = run()
    return y, resident("VmHWM") - before


def measure(args: argparse.Namespace) -> dict:
    """Seconds, peak megabytes and checksums of the row `args.one`, in this process."""
    if args.one == COPY:
        return {"bytes_per_s": copy_rate(args.device, args.repeats)}
    scan = scan_of(args.one)

    def prepared(*shape):
        tensors = inputs(*shape, args.gate, args.device)
        return [t if t is None else t.requires_grad_(not args.forward) for t in tensors]

    def run(leaves):
        for t in leaves:
            if t is not None:
                t.grad = None
        with torch.set_grad_enabled(not args.forward):
            y = scan(*leaves)
        if not args.forward:
            y.backward(torch.ones_like(y))
        return y

    run(prepared(1, 2, 32, args.state))  # compile, load
    leaves = prepared(*shape_of(args))
    y, megabytes = first_run(lambda: run(leaves), args.device)
    sums = [y.detach().double().square().mean().item()]
    gradients = [t.grad for t in leaves if t is not None and t.grad is not None]
    sums += [g.double().abs().mean().item() for g in gradients]
    del y, gradients
    seconds = seconds_of(lambda: run(leaves), args.device, args.repeats)
    return {"seconds": seconds, "megabytes": megabytes, "checksums": sums}


def shape_of(args: argparse.Namespace) -> tuple[int, int, int, int]:
    """Batch, length, width, state."""
    return args.batch, args.length, args.width, args.state


def in_own_process(row: str, args: argparse.Namespace) -> dict:
    """What `measure` finds for a row in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scan", "--one", row]
    for name in ("batch", "length", "width", "state", "repeats", "threads", "device"):
        command += [f"--{name}", str(getattr(args, name))]
    command += [f"--{name}" for name in ("forward", "gate") if getattr(args, name)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def check_equal(results: dict[str, dict]) -> None:
    """RuntimeError when a row computes something else than the first."""
    baseline = next(iter(results.values()))["checksums"]
    for row, result in results.items():
        for got, want in zip(result["checksums"], baseline, strict=True):
            if not abs(got - want) <= 1e-4 * abs(want):
                raise RuntimeError(f"{row} computes something else: {got} for {want}")


def table(results: dict[str, dict], bytes_moved: int, bytes_per_s: float) -> list[str]:
    """Lines of the table; the first row is 1.00x. With mamba_ssm also the speed against it."""
    baseline = next(iter(results.values()))
    compiled = results.get("mamba_ssm")
    head = f"{'row':14s}{'ms':>11s}{'speed-up':>10s}{'peak MB':>9s}{'of first':>9s}{'of copy':>9s}"
    lines = [head + (f"{'mamba_ssm':>11s}" if compiled else "")]
    for row, result in results.items():
        seconds, megabytes = result["seconds"], result["megabytes"]
        of_first = megabytes / baseline["megabytes"] if baseline["megabytes"] else math.nan
        share = bytes_moved / seconds / bytes_per_s
        line = (
            f"{row:14s}{1e3 * seconds:11.3f}{baseline['seconds'] / seconds:9.2f}x"
            f"{megabytes:9.0f}{of_first:9.2f}{share:9.1%}"
        )
        lines.append(line + (f"{compiled['seconds'] / seconds:10.2f}x" if compiled else ""))
    return lines


def benchmark(args: argparse.Namespace) -> str:
    """Table with one row per engine or package."""
    rows, absent = rows_of(args.device, args.rows)
    rate = in_own_process(COPY, args)["bytes_per_s"]
    results = {row: in_own_process(row, args) for row in rows}
    check_equal(results)
    where = f"{args.threads} thread(s)"
    if args.device == "cuda":
        where = torch.cuda.get_device_name(0)
    what = "forward" if args.forward else "forward + backward"
    bytes_moved = least_bytes(shape_of(args), args.forward, args.gate)
    lines = [
        f"batch {args.batch}, length {args.length}, width {args.width}, state {args.state}, "
        f"{'with' if args.gate else 'without'} skip and gate, fp32, {where}, {what}",
        f"a copy moves {rate / 1e9:.0f} GB/s; the scan must move {bytes_moved / 1e6:.0f} MB",
        *table(results, bytes_moved, rate),
    ]
    return "\n".join(lines + [f"{row}: not installed, left out" for row in absent])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=int, default=128, help="windows")
    parser.add_argument("--length", type=int, default=96, help="frames")
    parser.add_argument("--width", type=int, default=512, help="inner width D")
    parser.add_argument("--state", type=int, default=16, help="state size N")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    parser.add_argument("--forward", action="store_true", help="without gradients")
    parser.add_argument("--gate", action="store_true", help="with skip D and gate z")
    parser.add_argument("--device", choices=tuple(ROWS), default="cpu", help="where to run")
    parser.add_argument("--rows", nargs="+", choices=ALL_ROWS, help="the first is 1.00x")
    parser.add_argument("--one", choices=(*ALL_ROWS, COPY), help="measure here, print JSON")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        limit_threads(args.threads)
        if args.one:
            print(json.dumps(measure(args)))
        else:
            print(benchmark(args))

    return run_job("benchmarks.scan", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
