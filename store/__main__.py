"""python -m store describe FILE...   validate FILE...   verify FOLDER [--remove]"""

import argparse
import sys
from pathlib import Path

from runtime.job import run_job
from store.describe import describe, validate_all
from store.verify import verify


def run(args: argparse.Namespace) -> None:
    """Print summaries, or check the contracts."""
    if args.command == "describe":
        print("\n\n".join(describe(path) for path in args.files))
    elif args.command == "verify":
        print(verify(Path(args.folder), args.remove))
    else:
        for line in validate_all(args.files):
            print(line)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m store",
        description="Look into the files of the results folder (HDF5).",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("describe", "a one-screen summary: shape, rate, span, valid share, ranges, attributes"),
        ("validate", "check each file against its contract; exit 1 naming the problem"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("files", nargs="+", metavar="FILE", help="HDF5 file of the workflow")
    text = "compare every file with the checksum in its sidecar; exit 1 naming those that differ"
    command = commands.add_parser("verify", help=text, description=text)
    command.add_argument("folder", help="results folder, or a part of it")
    command.add_argument(
        "--remove",
        action="store_true",
        help="delete what differs with its sidecar: the next run makes it again",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job("store", build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
