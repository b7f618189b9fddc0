"""Every scan engine beside a plain autograd loop and other packages: time and peak memory.

python -m benchmarks.scan --threads 2 [--batch 128 --length 96 --width 512 --state 16]
python -m benchmarks.scan --threads 2 --batch 1 --length 30000 --forward

Rows: `reference` is the fair baseline, a loop over unbind(1) (slicing x[:, t] inside the loop makes
its backward pass quadratic); then our engines, mambapy's parallel scan and the scan of transformers
without compiled kernels. Each row is measured in a process of its own: seconds are the best of
`--repeats`, memory is the peak of the resident set during the first full run above what the process
held with its inputs in place (gradients count, libraries and compiled code do not). All rows must
produce the same checksums, or the benchmark fails.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from model.scan import selective_scan
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job
from runtime.torchvision_cpu import allow_torchvision_without_cuda

ENGINES = ("reference", "torch", "native")
OTHERS = ("mambapy", "transformers")


def scan_of(row: str) -> Callable:
    """A function of x, dt, A, B, C (shapes of `selective_scan`) that returns y (B, L, D)."""
    if row in ENGINES:
        return lambda x, dt, A, B, C: selective_scan(x, dt, A, B, C, backend=row)
    if row == "mambapy":
        from mambapy.pscan import pscan

        def run(x, dt, A, B, C):  # as in its MambaBlock.selective_scan
            decay = torch.exp(dt.unsqueeze(-1) * A)  # (B, L, D, N)
            states = pscan(decay, dt.unsqueeze(-1) * B.unsqueeze(2) * x.unsqueeze(-1))
            return (states @ C.unsqueeze(-1)).squeeze(3)

        return run
    allow_torchvision_without_cuda()
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    def run(x, dt, A, B, C):
        y = mamba_selective_scan(*(t.mT for t in (x, dt)), A, B.mT, C.mT)
        return (y[0] if isinstance(y, tuple) else y).mT

    return run


def inputs(batch: int, length: int, width: int, state: int) -> list[torch.Tensor]:
    """x, dt, A, B, C as at the start of training."""
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, length, width, generator=g),
        torch.rand(batch, length, width, generator=g) * 0.1,
        -torch.arange(1.0, state + 1).repeat(width, 1),
        torch.randn(batch, length, state, generator=g),
        torch.randn(batch, length, state, generator=g),
    ]


def resident(field: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM the peak since it was last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1e3
    raise OSError(f"no {field} in /proc/self/status")


def measure(row: str, shape: tuple[int, int, int, int], forward: bool, repeats: int) -> dict:
    """Seconds, peak megabytes and checksums of one row, in this process."""
    scan = scan_of(row)

    def run(leaves):
        with torch.set_grad_enabled(not forward):
            y = scan(*leaves)
        if not forward:
            y.backward(torch.ones_like(y))
        return y

    run([t.requires_grad_(not forward) for t in inputs(1, 2, 32, shape[3])])  # compile, load
    leaves = [t.requires_grad_(not forward) for t in inputs(*shape)]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from here
    before = resident("VmRSS")
    y = run(leaves)
    peak = resident("VmHWM") - before
    sums = [y.detach().double().square().mean().item()]
    sums += [t.grad.double().abs().mean().item() for t in leaves if t.grad is not None]
    del y
    times = []
    for _ in range(repeats):
        for t in leaves:
            t.grad = None
        start = time.perf_counter()
        run(leaves)
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "megabytes": peak, "checksums": sums}


def benchmark(args: argparse.Namespace) -> str:
    """Table with one row per engine or package."""
    what = "forward" if args.forward else "forward + backward"
    lines = [
        f"batch {args.batch}, length {args.length}, width {args.width}, state {args.state}, fp32, "
        f"{args.threads} thread(s), {what}",
        f"{'row':14s}{'seconds':>9s}{'speed-up':>10s}{'peak MB':>9s}{'of loop':>9s}",
    ]
    baseline = None
    for row in args.rows or (*ENGINES, *OTHERS):
        command = [sys.executable, "-m", "benchmarks.scan", "--one", row]
        for name in ("batch", "length", "width", "state", "repeats", "threads"):
            command += [f"--{name}", str(getattr(args, name))]
        command += ["--forward"] if args.forward else []
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        result = json.loads(output.splitlines()[-1])
        baseline = baseline or result
        for got, want in zip(result["checksums"], baseline["checksums"], strict=True):
            if abs(got - want) > 1e-4 * abs(want):
                raise RuntimeError(f"{row} computes something else: {got} for {want}")
        seconds, megabytes = result["seconds"], result["megabytes"]
        lines.append(
            f"{row:14s}{seconds:9.3f}{baseline['seconds'] / seconds:9.2f}x"
            f"{megabytes:9.0f}{megabytes / baseline['megabytes']:9.2f}"
        )
    return "\n".join(lines)


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
    parser.add_argument("--rows", nargs="+", choices=ENGINES + OTHERS, help="the first is 1.00x")
    parser.add_argument("--one", choices=ENGINES + OTHERS, help="measure here, print JSON")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        limit_threads(args.threads)
        if args.one:
            shape = (args.batch, args.length, args.width, args.state)
            print(json.dumps(measure(args.one, shape, args.forward, args.repeats)))
        else:
            print(benchmark(args))

    return run_job("benchmarks.scan", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
