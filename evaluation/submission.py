"""The zip that a challenge team hands in.

    python -m evaluation.submission --year 2026 --results results/multimediate \\
        --predictions noxi.h5 noxi-add.h5 ... --out team.zip

Folders and suffixes of the year (evaluation.layouts), one float per line (`%.6f`), line k for frame
k at 25 Hz of the participant's own recording, from its first frame to its last; sessions of other
splits than test are left out. Everything is checked before a byte is written: every folder of the
year is there (but those of `--without`), every required participant, no other, every line predicted,
every value finite and in 0..1 (`--clip` cuts to it). Equal predictions give equal bytes.
"""

import argparse
import math
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np

from alignment.clock import read_clock, read_json
from evaluation.layouts import LAYOUTS, Layout
from evaluation.predictions import MATCH_S, PredictionFile, sample
from formats.ssi.rate import LENGTH_TOLERANCE_S
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store import layout
from store.atomic import atomic_path
from store.session_spec import SessionSpec

log = get_logger("submission")

RATE_HZ = 25.0
SNAP_FRAMES = 1e-6  # a recording ends on a frame when it ends this near to it
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: no clock inside


def own_frames(results: Path, spec: SessionSpec, role: str) -> tuple[float, int]:
    """Second of session time at which a participant's recording begins, and its frames at 25 Hz.

    A recording is as long as media.probe found it. Where a precomputed stream belongs to another
    recording, it is as long as the sound. Raises InputError for missing or damaged records.
    """
    path = layout.probe(results, *spec.key, role)
    record = read_json(path)
    try:
        start, seconds = float(record["offset"]), float(record["duration_s"])
        streams = {n: float(s["duration_s"]) for n, s in (record.get("streams") or {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise InputError(
            f"{path} is no record of a recording ({' '.join(str(e).split())[:60]})",
            f"delete it and run again, it will be remade: rm '{path}'",
        ) from e
    sound = [s for name, s in streams.items() if name.startswith("audio.")]
    if sound and seconds - max(sound) > LENGTH_TOLERANCE_S:
        seconds = max(sound)
    return start, math.ceil(seconds * RATE_HZ - SNAP_FRAMES)


def lines_of(
    predictions: PredictionFile, results: Path, session: str, role: str, clip: bool
) -> np.ndarray:
    """The values (n,) of one participant's file, in 0..1, one per frame of the recording.

    Raises InputError where predictions and recording differ in length, and for values that are not
    finite or outside 0..1.
    """
    spec = SessionSpec(predictions.dataset, session, (role,))
    start, n = own_frames(results, spec, role)
    series = predictions.read(session, role)
    times = start + np.arange(n) / RATE_HZ
    # The grid of the predictions may be coarser than 25 Hz: its last value holds for one step.
    step = max([1 / RATE_HZ, *np.diff(series.time[-2:])])
    first, last, end = (
        series.time[0],
        series.time[-1],
        read_clock(layout.clock(results, *spec.key)).duration_s,
    )
    if first > start + MATCH_S or last + step < times[-1] - MATCH_S or last >= end:
        raise InputError(
            f"{predictions.path}: {session}/{role} is predicted from {first:.2f} to {last:.2f} s, the"
            f" recording has {n} frames from {start:.2f} to {times[-1]:.2f} s in a session of {end:.2f} s",
            f"predict it again: rm '{predictions.path}'",
        )
    values, _ = sample(series, times)
    if clip:
        values = values.clip(0.0, 1.0)
    for what, odd in (
        ("that are no number", ~np.isfinite(values)),
        ("outside 0..1", ~((values >= 0) & (values <= 1))),
    ):
        at = np.flatnonzero(odd)
        if len(at):
            raise InputError(
                f"{predictions.path}: {session}/{role} has {len(at)} of {n} values {what}, the first"
                f" ({values[at[0]]:g}) in frame {at[0]} at {at[0] / RATE_HZ:.2f} s",
                "cut them with --clip (config: submission.clip)"
                if "outside" in what
                else f"predict it again, or train again: rm '{predictions.path}'",
            )
    return values


def collect(
    predictions: list[Path], layout: Layout, results: Path, clip: bool = False
) -> dict[str, np.ndarray]:
    """Member name -> values (n,), checked; only folders whose dataset was given are filled.

    Raises InputError for a dataset that is no part of the year's submission or given twice, classes,
    a missing participant (all are counted, the first is named), one too many, and what `lines_of`
    finds.
    """
    folders = {folder.dataset: name for name, folder in layout.folders.items()}
    members: dict[str, np.ndarray] = {}
    given: dict[str, Path] = {}
    for path in predictions:
        with PredictionFile(path) as f:
            if f.dataset not in folders:
                raise InputError(
                    f"{path} holds {f.dataset}, no part of a {layout.year} submission",
                    f"its datasets: {', '.join(folders)}",
                )
            name = folders[f.dataset]
            if f.classes or name in layout.classes:
                raise InputError(
                    f"{path} holds classes of {f.dataset}: the challenge has published no form for"
                    " their files, so this zip leaves them out",
                    "give the other datasets; docs/challenge.md says how teams wrote classes and which"
                    " command writes these files",
                )
            if f.dataset in given:
                raise InputError(
                    f"{given[f.dataset]} and {path} both hold {f.dataset}", "give one of them"
                )
            given[f.dataset] = path
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
                values = lines_of(f, results, session, role, clip)
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


def submit(
    predictions: list[Path],
    year: int,
    results: Path,
    out: Path,
    clip: bool = False,
    without: Collection[str] = (),
) -> dict[str, int]:
    """Check everything and write the zip; returns files per folder.

    without: folders of the year that are left out on purpose. Raises InputError for any other that
    no predictions fill, and what `collect` finds.
    """
    layout = LAYOUTS[year]
    layout.check_names(without)
    members = collect(predictions, layout, results, clip)
    counts = {name: sum(m.startswith(f"{name}/") for m in members) for name in layout.folders}
    absent = [n for n, c in counts.items() if not c and n not in layout.classes]
    if lacking := [name for name in absent if name not in without]:
        raise InputError(
            f"no predictions for {', '.join(lacking)}, which a {year} submission must hold",
            f"predict them, or leave them out on purpose: --without {' '.join(lacking)}",
        )
    if filled := [name for name in without if counts[name]]:
        raise InputError(
            f"--without {filled[0]}, and there are predictions for it",
            "take one of them away",
        )
    if absent:
        log.warning("left out as told: %s", ", ".join(absent))
    if layout.classes:
        log.warning(
            "the challenge also wants %s, whose files have no published form: they are not in this zip",
            ", ".join(layout.classes),
        )
    write_zip(out, members)
    for name, count in counts.items():
        if count:
            lines = sum(len(v) for m, v in members.items() if m.startswith(f"{name}/"))
            log.info("%s: %d files, %d lines", name, count, lines)
    return counts


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.submission",
        description="Write the challenge's zip from predictions of the test sets.",
    )
    add = parser.add_argument
    add("--predictions", nargs="+", type=Path, required=True, help="one file per dataset")
    add("--results", type=Path, required=True, help="results folder: how long recordings are")
    add("--year", type=int, choices=sorted(LAYOUTS), default=max(LAYOUTS))
    add("--clip", action="store_true", help="cut values to 0..1")
    add("--without", nargs="*", default=[], metavar="FOLDER", help="folders left out on purpose")
    add("--out", type=Path, required=True, help="zip file to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        submit(args.predictions, args.year, args.results, args.out, args.clip, args.without)

    return run_job("evaluation.submission", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
