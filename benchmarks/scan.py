"""The checkpointed scan beside a plain autograd loop: time and memory, forward and backward.

python -m benchmarks.scan [--batch 32 --length 96 --width 368 --state 16 --threads 1]

Both compute the same numbers (tests/test_scan.py). The plain loop unbinds time once; slicing
x[:, t] inside the loop would be far slower and is no fair comparison. Memory is what each keeps for
the backward pass.
"""

import argparse
import sys
import time

import torch

from model.scan import BACKENDS, selective_scan
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job


def measure(backend: str, shape: tuple[int, int, int, int], repeats: int) -> tuple[float, float]:
    """Best time in s of forward + backward, and megabytes kept between them."""
    batch, length, width, state = shape
    torch.manual_seed(0)
    leaves = {
        "x": torch.randn(batch, length, width),
        "dt": torch.rand(batch, length, width) * 0.1,
        "A": -torch.rand(width, state) - 0.1,
        "B": torch.randn(batch, length, state),
        "C": torch.randn(batch, length, state),
    }
    leaves = {name: t.requires_grad_() for name, t in leaves.items()}
    kept: dict[int, int] = {}

    def count(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        selective_scan(**leaves, backend=backend).sum().backward()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        selective_scan(**leaves, backend=backend).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times), sum(kept.values()) / 1e6


def benchmark(shape: tuple[int, int, int, int], repeats: int) -> str:
    """Table with one row per backend."""
    lines = [
        f"batch {shape[0]}, length {shape[1]}, width {shape[2]}, state {shape[3]}, "
        f"{torch.get_num_threads()} thread(s), forward + backward",
        f"{'backend':12s}{'seconds':>10s}{'kept MB':>10s}",
    ]
    for backend in BACKENDS:
        seconds, megabytes = measure(backend, shape, repeats)
        lines.append(f"{backend:12s}{seconds:10.3f}{megabytes:10.1f}")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=int, default=32, help="windows")
    parser.add_argument("--length", type=int, default=96, help="frames")
    parser.add_argument("--width", type=int, default=368, help="inner width D")
    parser.add_argument("--state", type=int, default=16, help="state size N")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        limit_threads(args.threads)
        print(benchmark((args.batch, args.length, args.width, args.state), args.repeats))

    return run_job("benchmarks.scan", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
