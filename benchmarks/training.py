"""Steps per second of demo trainings, and how they compare between checkouts of this program.

python -m benchmarks.training [--checkouts . ../before] [--runs '{"preset": "demo"}' ...]

A synthetic corpus of real shape; `python -m training.train` for few and for more epochs in each
checkout, the checkouts taking turns. The difference of the two is the time of the steps alone,
loader included, without start and first reading. CPU seconds are of all threads: on a busy machine
they say more than wall seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.synthetic import write_corpus, write_statistics
from runtime.job import add_job_arguments, run_job

EPOCHS = (1, 4)


def train(checkout: str, settings: dict, epochs: int, arguments: list[str], folder: Path):
    """One training in another process: optimiser steps, wall s, CPU s."""
    training = settings.get("training", {}) | {"epochs": epochs, "warmup_steps": 0}
    history = folder / "history.jsonl"
    command = [sys.executable, "-m", "training.train", *arguments, "--history", str(history)]
    command += ["--settings", json.dumps(settings | {"training": training})]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(folder / "m.safetensors")], cwd=checkout)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"training in {checkout} failed, see {folder / 'train.log'}")
    steps = json.loads(history.read_text().splitlines()[-1])["steps"]
    return steps, wall, usage.ru_utime + usage.ru_stime


def benchmark(
    checkouts: list[str], runs: list[dict], repeats: int, threads: int, folder: Path
) -> str:
    """Table: a row per run and checkout; the fastest of `repeats` counts."""
    specs = write_corpus(folder, 2, 120.0)
    statistics = write_statistics(folder, specs)
    arguments = ["--train", *specs, "--results", str(folder), "--statistics", str(statistics)]
    arguments += ["--threads", str(threads), "--log", str(folder / "train.log")]
    lines = [
        f"{threads} thread(s), 2 dyads of 2 min",
        f"{'steps/s':>8s}{'CPU ms/step':>13s}  checkout, settings",
    ]
    for settings in runs:
        found: dict[tuple[str, int], list] = {(c, n): [] for c in checkouts for n in EPOCHS}
        for _ in range(repeats):
            for (checkout, epochs), times in found.items():
                times.append(train(checkout, settings, epochs, arguments, folder))
        for checkout in checkouts:
            # The least disturbed of each, then the difference.
            few, more = (np.min(found[checkout, epochs], axis=0) for epochs in EPOCHS)
            steps, wall, cpu = more - few
            wall, cpu = wall / steps, cpu / steps
            rate = f"{1 / wall:8.2f}" if wall > 0 else f"{'?':>8s}"  # a machine too busy to say
            lines.append(f"{rate}{1e3 * cpu:13.0f}  {checkout} {json.dumps(settings)}")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkouts", nargs="+", default=["."], help="folders of this program to compare")
    add("--runs", nargs="+", default=['{"preset": "demo"}'], metavar="JSON", help="settings")
    add("--repeats", type=int, default=3, help="the fastest counts")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        with tempfile.TemporaryDirectory() as folder:
            runs = [json.loads(text) for text in args.runs]
            print(benchmark(args.checkouts, runs, args.repeats, args.threads, Path(folder)))

    return run_job("benchmarks.training", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
