"""`python -m model describe`: what models consist of and cost. `python -m model benchmark`: live
prediction and whole sessions."""

import argparse
import sys

from model.describe import PAPER_DIMS, describe, print_all
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job


def build_parser() -> argparse.ArgumentParser:
    from benchmarks import live as benchmark

    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "describe",
        help="parameters per part, FLOPs and training memory of every model and preset, or the "
        "parameters of one run",
    )
    command.add_argument(
        "--settings", metavar="JSON", help="one run's settings (default: every model and preset)"
    )
    command.add_argument(
        "--dims", default=PAPER_DIMS, help=f"input dimensions (default: {PAPER_DIMS})"
    )
    add_job_arguments(command)
    command = commands.add_parser("benchmark", help="time of live prediction and whole sessions")
    benchmark.add_arguments(command)
    return parser


def run(args: argparse.Namespace) -> None:
    """One of the commands."""
    if args.command == "benchmark":
        from benchmarks import live as benchmark

        benchmark.run(args)
    elif args.settings is not None:
        print(describe(args.settings, args.dims))
    else:
        import torch  # noqa: F401  so that its threads are limited too

        limit_threads(args.threads)
        print_all(args.dims)


def main(argv: list[str] | None = None) -> int:
    return run_job("model", build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
