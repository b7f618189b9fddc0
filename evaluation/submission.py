"""The zip that a challenge team hands in.

    python -m evaluation.submission --year 2026 --predictions noxi.h5 noxi-add.h5 ... --out team.zip

Folders and suffixes of the year (evaluation.layouts), one float per line (`%.6f`), line k for frame
k at 25 Hz; sessions of other splits than test are left out. Everything is checked before a byte is
written: every required participant is there, no other, every value finite and in 0..1 (`--clip` cuts
to it). Equal predictions give equal bytes.
"""

import argparse
import sys
import zipfile
from pathlib import Path

import numpy as np

from evaluation.export import frame_values
from evaluation.layouts import LAYOUTS, Layout
from evaluation.predictions import PredictionFile
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store.atomic import atomic_path

log = get_logger("submission")

RATE_HZ = 25.0
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: no clock inside


def collect(predictions: list[Path], layout: Layout, clip: bool) -> dict[str, np.ndarray]:
    """Member name -> values (n,), checked; only folders whose dataset was given are filled.

    Raises InputError for a dataset that is no part of the year's submission, classes, a missing participant
    (all are counted, the first is named), one too many, or values outside 0..1.
    """
    folders = {folder.dataset: name for name, folder in layout.folders.items()}
    members: dict[str, np.ndarray] = {}
    for path in predictions:
        with PredictionFile(path) as f:
            if f.dataset not in folders:
                raise InputError(
                    f"{path} holds {f.dataset}, no part of a {layout.year} submission",
                    f"its datasets: {', '.join(folders)}",
                )
            name = folders[f.dataset]
            if name in layout.classes:
                raise InputError(
                    f"{path}: the classes of {f.dataset} are not written here",
                    "hand in the regression sets; the form of this file is not public",
                )
            # A run that evaluates validation sessions too has them in the same file.
            there = [p for p in f.participants() if f.split(p[0]) in ("", "test")]
            required = layout.folders[name].required() or there
            missing = [p for p in required if p not in there]
            if missing:
                raise InputError(
                    f"{path} lacks {len(missing)} of {len(required)} participants of {name}: {'/'.join(missing[0])}",
                    "predict these sessions (are they in the sheet, and not excluded?)",
                )
            extra = [p for p in there if p not in required]
            if extra:
                raise InputError(
                    f"{path} holds {'/'.join(extra[0])}, which {name} of {layout.year} does not have",
                    "predict the test set alone (config: `evaluate`)",
                )
            for session, role in required:
                values = frame_values(f, session, role, RATE_HZ)
                if clip:
                    values = values.clip(0.0, 1.0)
                odd = np.flatnonzero(~((values >= 0) & (values <= 1)))
                if len(odd):
                    raise InputError(
                        f"{path}: {session}/{role} has {len(odd)} of {len(values)} values outside 0..1, the first at {odd[0] / RATE_HZ:.2f} s",
                        "cut them with --clip",
                    )
                members[layout.member(name, session, role)] = values
    return members


def write_zip(out: Path, members: dict[str, np.ndarray]) -> None:
    """Write the members sorted by name, atomically, with equal bytes for equal values."""
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, "".join(f"{v:.6f}\n" for v in members[name]))


def submit(predictions: list[Path], year: int, out: Path, clip: bool) -> dict[str, int]:
    """Check everything and write the zip; returns files per folder."""
    layout = LAYOUTS[year]
    members = collect(predictions, layout, clip)
    counts = {name: sum(m.startswith(f"{name}/") for m in members) for name in layout.folders}
    absent = [name for name, n in counts.items() if not n]
    if absent:
        log.warning("no predictions for %s: these folders are not in the zip", ", ".join(absent))
    write_zip(out, members)
    for name, n in counts.items():
        log.info("%s: %d files", name, n)
    return counts


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.submission",
        description="Write the challenge's zip from predictions of the test sets.",
    )
    parser.add_argument(
        "--predictions", nargs="+", type=Path, required=True, help="one file per dataset"
    )
    parser.add_argument("--year", type=int, choices=sorted(LAYOUTS), default=max(LAYOUTS))
    parser.add_argument("--clip", action="store_true", help="cut values to 0..1")
    parser.add_argument("--out", type=Path, required=True, help="zip file to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        submit(args.predictions, args.year, args.out, args.clip)

    return run_job("evaluation.submission", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
