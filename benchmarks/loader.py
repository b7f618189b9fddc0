"""Windows per second of the loader against what training steps consume, in one run.

python -m benchmarks.loader [--sessions 6 --minutes 5 --presets demo,paper --threads 2]

A synthetic corpus of real shape is written through the real writers. The loader then gives batches
    cold     its files out of the page cache, nothing read yet
    reread   files in the page cache, the pool in memory too small to keep a slice (a corpus much
             larger than `training.pool_gb` on a fast disk)
    warm     every slice in the pool (each epoch after the first, if the corpus fits)
and the same batches go through training steps of each preset. Rates are target windows per wall
second, and, as other work on the machine disturbs those, per CPU second: what a window costs the
loader (its reading uses `--threads` threads too) against what it costs a step on one thread. The
loader must give 3 times what the demo preset consumes.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.synthetic import SHAPES, write_corpus
from model.batch import Batch
from model.registry import build
from runtime.device import describe_device, limit_threads, pick_device
from runtime.job import add_job_arguments, run_job
from store.session_spec import parse_specs
from training.optim import MovingAverage, make_optimiser
from training.settings import Settings, parse
from training.train import State, optimise
from training.windows import Windows

GOAL = 3.0


def drop_caches(results: Path) -> None:
    """Put the aligned files out of the page cache."""
    for path in results.rglob("*.h5"):
        with open(path, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Watch:
    """Wall and CPU seconds, (2,), since it was made."""

    def __init__(self):
        self.start = self.now()

    def now(self) -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def seconds(self) -> np.ndarray:
        return self.now() - self.start


def drain(batches: Iterator[Batch]) -> tuple[np.ndarray, list[Batch]]:
    """Target windows per wall and per CPU second, (2,), and the first few batches."""
    kept, count = [], 0
    watch = Watch()
    for batch in batches:
        count += len(batch.target)
        if len(kept) < 3:
            kept.append(batch)
    return count / watch.seconds(), kept


def loader_rates(results: Path, specs: list[str], settings: Settings) -> tuple[dict, list[Batch]]:
    """Rates, cold, reread and warm; and some batches."""

    def make(pool_gb: float) -> Windows:
        training = dataclasses.replace(settings.training, pool_gb=pool_gb)
        chosen = dataclasses.replace(settings, training=training)
        return Windows(results, parse_specs(specs), chosen, True)

    large, rates = make(1e3), {}
    drop_caches(results)
    rates["cold"], _ = drain(large.training_batches(0, 0))
    rates["reread"], _ = drain(make(1e-6).training_batches(0, 0))
    again = [drain(large.training_batches(epoch, 0)) for epoch in (1, 2)]
    rates["warm"] = np.max([rate for rate, _ in again], axis=0)
    return rates, again[0][1]


def step_rate(settings: Settings, batches: list[Batch], threads: int) -> np.ndarray:
    """Target windows per second of training steps (forward, backward, optimiser, average).

    (2,): per wall second with all threads, per CPU second with one.
    """
    torch.manual_seed(0)
    device = pick_device()
    model = build(settings, {name: shape[0] for name, shape in SHAPES.items()}).to(device)
    t = settings.training
    state = State(model, MovingAverage(model, t.ema), make_optimiser(model, t))
    rates = []
    for used in (threads, 1):
        torch.set_num_threads(used)
        of_batch = []
        for batch in [batches[0], *batches]:  # the first warms up
            watch = Watch()
            optimise(state, batch.to(device), settings, t.learning_rate)
            of_batch.append(len(batch.target) / watch.seconds())
        rates.append(np.max(of_batch[1:], axis=0))
    torch.set_num_threads(threads)
    return np.array([rates[0][0], rates[1][1]])


def benchmark(folder: Path, sessions: int, minutes: float, presets: list[str], largest: int) -> str:
    """The table."""
    specs = write_corpus(folder, sessions, 60 * minutes)
    size = sum(p.stat().st_size for p in (folder / "aligned").rglob("*.h5")) / 1e9
    threads = torch.get_num_threads()
    lines = [
        f"{sessions} dyads of {minutes:g} min, {size:.2f} GB of aligned files, {threads} threads, "
        f"{describe_device()}; target windows per second",
        f"{'preset':8s}{'batch':>6s}{'second':>8s}{'steps':>8s}"
        + "".join(f"{name:>9s}{'ratio':>9s}" for name in ("cold", "reread", "warm")),
    ]
    for preset in presets:
        settings = parse({"preset": preset})
        training = settings.training
        training = dataclasses.replace(training, batch=min(training.batch, largest))
        settings = dataclasses.replace(settings, training=training)
        rates, batches = loader_rates(folder, specs, settings)
        consumed = step_rate(settings, batches, threads)
        for i, kind in enumerate(("wall", "CPU")):
            columns = "".join(f"{r[i]:9.0f}{r[i] / consumed[i]:8.1f}x" for r in rates.values())
            lines.append(f"{preset:8s}{training.batch:6d}{kind:>8s}{consumed[i]:8.1f}{columns}")
    lines.append(f"goal: at least {GOAL:g}x of the demo preset")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sessions", type=int, default=6, help="dyads")
    parser.add_argument("--minutes", type=float, default=5.0, help="length of each")
    parser.add_argument("--presets", default="demo,paper", help="whose steps to measure")
    parser.add_argument("--largest-batch", type=int, default=32, help="caps training.batch")
    parser.add_argument("--folder", help="where the corpus goes (default: a temporary folder)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        limit_threads(args.threads)
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            presets = args.presets.split(",")
            print(benchmark(Path(folder), args.sessions, args.minutes, presets, args.largest_batch))

    return run_job("benchmarks.loader", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
