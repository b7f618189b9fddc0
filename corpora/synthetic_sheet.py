"""A sessions sheet of the official size, without recordings: to measure how the workflow scales.

    python -m corpora.synthetic_sheet [--times 10] [--files DIR] > sessions.tsv

All 139 sessions of NoXi, NoXi-Add, NoXi-J and MPIIGroupInteraction in their official splits, 302
participants, everyone with video, sound and labels. With --files the media exist as empty files.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from corpora.official import SPLITS
from corpora.sheet import PATHS, Participant, write_sheet
from runtime.job import run_job

# Everybody who can sit at a table of MPIIGroupInteraction; two people meet in the others.
ROLES = {"mpiigi": tuple(f"subjectPos{i}" for i in range(1, 5))}
TWO = ("expert", "novice")


def participants(times: int = 1) -> Iterator[Participant]:
    """Rows of all official sessions, each `times` times under names of their own."""
    for dataset, splits in SPLITS.items():
        for split, sessions in splits.items():
            for name in sessions:
                for copy in range(times):
                    session = f"{name}-{copy + 1}" if copy else name
                    for role in ROLES.get(dataset, TWO):
                        stem = f"{dataset}/{split}/{session}/{role}"
                        yield Participant(
                            dataset=dataset,
                            split=split,
                            session=session,
                            role=role,
                            video=f"{stem}.video.mp4",
                            audio=f"{stem}.audio.wav",
                            labels=f"{stem}.engagement.annotation.csv",
                        )


def make_files(rows: list[Participant], root: Path) -> None:
    """Empty files for every path of the rows, below `root`."""
    for row in rows:
        for column in PATHS:
            if getattr(row, column):
                path = root / getattr(row, column)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m corpora.synthetic_sheet",
        description="Print a sheet of the official sessions, without recordings.",
    )
    parser.set_defaults(log=None)
    parser.add_argument("--times", type=int, default=1, help="copies of every session (1)")
    parser.add_argument("--files", metavar="DIR", help="make empty media files below this folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        rows = list(participants(args.times))
        if args.files:
            make_files(rows, Path(args.files))
        sys.stdout.write(write_sheet(rows))

    return run_job("corpora.synthetic_sheet", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
