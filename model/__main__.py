"""`python -m model describe`: what models consist of and what a forward pass costs."""

import argparse
import sys

from model.describe import PAPER_DIMS, describe, print_all
from runtime.device import limit_threads
from runtime.job import add_job_arguments, run_job


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "describe",
        help="parameters per part and FLOPs of every model, preset and published variant, or the "
        "parameters of one network",
    )
    command.add_argument(
        "--settings", metavar="JSON", help="settings of one network (default: every model)"
    )
    command.add_argument(
        "--dims", default=PAPER_DIMS, help=f"input dimensions (default: {PAPER_DIMS})"
    )
    add_job_arguments(command)
    return parser


def run(args: argparse.Namespace) -> None:
    """One of the commands."""
    limit_threads(args.threads)
    if args.settings is not None:
        print(describe(args.settings, args.dims))
    else:
        print_all(args.dims)


def main(argv: list[str] | None = None) -> int:
    return run_job("model", build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
