"""Predictions for other tools, one file (or pair of files) per participant.

Formats, all from second 0 of session time, RATE values a second (25, the label rate of the
engagement corpora; PInSoRo has 30):
    challenge  {dataset}/{session}/{role}.engagement.prediction.csv: one `%.6f` per line, no header
    csv        ...{role}.engagement.csv: columns time_s, engagement, valid
    nova       ...{role}.engagement.annotation(~): SSI annotation for NOVA, of type CONTINUOUS;
               confidence 0 where the participant had no input
    elan       ...{role}.engagement.elan.csv: Tier, Begin, End, Annotation for ELAN's import of
               comma-separated text; one annotation per ELAN_STEP_S with the mean of its frames that
               have input, none where no frame has
Predictions on another grid are interpolated linearly. Line k always belongs to frame k.

Of a run of classes every frame holds its class, by name: `--classes` gives the names in the order of
the config's `labels.classes`. nova is then a DISCRETE annotation with these classes as its scheme,
elan and nova have one annotation for as long as a class lasts (nova with confidence 0, elan with none
where the participant had no input). `--label` replaces `engagement` in the names of files and tiers:
task_engagement, social_engagement.
"""

import argparse
import csv
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.predictions import MATCH_S, MAX_BEYOND_S, PredictionFile, sample
from formats.ssi.annotation import Continuous, Discrete, Item, write_annotation
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store.atomic import write_text

log = get_logger("export")
RATE_HZ = 25.0
ELAN_STEP_S = 1.0
FORMATS = ("challenge", "csv", "nova", "elan")
LABEL = "engagement"
# Colours of classes in NOVA, which shows a class of no colour as black (Okabe and Ito's palette).
COLOURS = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7", "999999")


@dataclass(frozen=True)
class Frames:
    """One participant's predictions: values (n,), valid (n,) bool, frame k at k / rate_hz s.

    classes: names of the classes that values are the indices of; empty: values are engagement.
    """

    role: str
    run: str
    values: np.ndarray
    valid: np.ndarray
    rate_hz: float
    classes: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Every frame as text."""
        if self.classes:
            return [self.classes[int(v)] for v in self.values]
        return [f"{v:.6f}" for v in self.values]

    def pieces(self) -> list[tuple[int, int]]:
        """(first frame, frame after the last) for as long as class and validity stay the same."""
        changes = (np.diff(self.values) != 0) | (np.diff(self.valid.astype(int)) != 0)
        ends = [*(np.flatnonzero(changes) + 1), len(self.values)]
        return list(zip([0, *ends[:-1]], ends, strict=True))


def frames(
    predictions: PredictionFile, session: str, role: str, rate_hz: float = RATE_HZ
) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,) and validity (n,) at k / rate_hz s, to the end of the predictions.

    Raises InputError when they begin more than 0.5 s after zero (earlier lines would have to be
    invented).
    """
    series = predictions.read(session, role)
    if series.time[0] > MAX_BEYOND_S:
        raise InputError(
            f"{predictions.path}: the predictions of {session}/{role} begin at {series.time[0]:.2f} s",
            "predict again on the whole session",
        )
    n = int(np.floor((series.time[-1] + MATCH_S) * rate_hz)) + 1
    return sample(series, np.arange(n) / rate_hz)


def check_classes(predictions: PredictionFile, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of a file's classes; InputError unless there are as many as it has."""
    found = tuple(classes)
    if len(found) == predictions.classes and len(set(found)) == len(found):
        return found
    if not predictions.classes:
        problem, cure = "holds values, no classes", "leave --classes out"
    elif not found:
        problem = f"holds {predictions.classes} classes, whose names it does not know"
        cure = "give them in the order of the config's labels.classes: --classes NAME NAME ..."
    else:
        problem = f"holds {predictions.classes} classes, --classes has {', '.join(found)}"
        cure = "give each name of the config's labels.classes once, in its order"
    raise InputError(f"{predictions.path} {problem}", cure)


def export(
    predictions: Path,
    out_dir: Path,
    rate_hz: float = RATE_HZ,
    form: str = "challenge",
    classes: Sequence[str] = (),
    label: str = LABEL,
    only: str = "",
) -> list[Path]:
    """Write every participant in one of `FORMATS`; returns the paths.

    classes: names of the classes, of a run of classes; label: what files and tiers are called; only:
    session/role of the one participant to write.
    Raises InputError for names that are not those of the file's classes, and for values that cannot
    be written: no number, no class.
    """
    if not re.fullmatch(r"\w[\w.-]*", label):
        raise InputError(
            f"--label {label} cannot be part of a file's name",
            "use letters, digits, '.', '_' and '-'",
        )
    written = []
    with PredictionFile(predictions) as f:
        names = check_classes(f, classes)
        people = [p for p in f.participants() if only in ("", "/".join(p))]
        if not people:
            raise InputError(
                f"{predictions} holds nobody called {only}",
                f"write session/role, for example {'/'.join(f.participants()[0])}",
            )
        for session, role in people:
            values, valid = frames(f, session, role, rate_hz)
            sound = np.isfinite(values)
            if names:
                sound = np.isin(values, np.arange(len(names)))
            if not sound.all():
                k = int(np.flatnonzero(~sound)[0])
                raise InputError(
                    f"{f.path}: {session}/{role} holds {values[k]:g} at {k / rate_hz:.2f} s",
                    f"predict again: rm '{f.path}'",
                )
            stem = out_dir / f.dataset / session / f"{role}.{label}"
            found = Frames(role, f.run, values, valid, rate_hz, names)
            written.append(_write(stem, found, form, label))
    log.info("wrote %d files under %s", len(written), out_dir)
    return written


def _write(stem: Path, found: Frames, form: str, label: str) -> Path:
    if form == "nova":
        path = stem.with_name(stem.name + ".annotation")
        write_annotation(path, _annotation(found, label))
        return path
    if form == "challenge":
        path = stem.with_name(stem.name + ".prediction.csv")
        write_text(path, "".join(f"{word}\n" for word in found.words()))
        return path
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    if form == "csv":
        path = stem.with_name(stem.name + ".csv")
        rows.writerow(["time_s", label, "valid"])
        for k, (word, ok) in enumerate(zip(found.words(), found.valid, strict=True)):
            rows.writerow([f"{k / found.rate_hz:.6g}", word, int(ok)])
    else:
        path = stem.with_name(stem.name + ".elan.csv")
        rows.writerow(["Tier", "Begin", "End", "Annotation"])
        for start, end, word in _elan(found):
            times = [f"{k / found.rate_hz:.3f}" for k in (start, end)]
            rows.writerow([f"{label} {found.role}", *times, word])
    write_text(path, text.getvalue())
    return path


def _annotation(found: Frames, label: str) -> Continuous | Discrete:
    meta = {"role": found.role, "annotator": found.run}
    if not found.classes:
        confidence = found.valid.astype(np.float32)
        values = found.values.astype(np.float32)
        return Continuous(label, values, confidence, found.rate_hz, 0, 1, meta)
    items = tuple(
        Item(i, name, f"#FF{COLOURS[i % len(COLOURS)]}") for i, name in enumerate(found.classes)
    )
    edges = np.array(found.pieces())  # (m, 2)
    return Discrete(
        label,
        edges[:, 0] / found.rate_hz,
        edges[:, 1] / found.rate_hz,
        found.values[edges[:, 0]].astype(np.int32),
        found.valid[edges[:, 0]].astype(np.float32),
        items,
        meta,
    )


def _elan(found: Frames) -> list[tuple[int, int, str]]:
    """(first frame, frame after the last, text) of every annotation."""
    if found.classes:
        return [
            (start, end, found.classes[int(found.values[start])])
            for start, end in found.pieces()
            if found.valid[start]
        ]
    step = max(1, round(ELAN_STEP_S * found.rate_hz))
    spans = [(at, min(at + step, len(found.values))) for at in range(0, len(found.values), step)]
    return [
        (start, end, f"{found.values[start:end][found.valid[start:end]].mean():.3f}")
        for start, end in spans
        if found.valid[start:end].any()
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.export",
        description="Export predictions: one file per participant, 25 values a second.",
    )
    add = parser.add_argument
    add("--predictions", required=True, type=Path, help="predictions file (.h5)")
    add("--out-dir", required=True, type=Path, help="folder to write into")
    add("--rate-hz", type=float, default=RATE_HZ, help="values per second")
    add("--format", choices=FORMATS, default="challenge", help="form of the files")
    add("--classes", nargs="+", default=[], metavar="NAME", help="names of the classes, in order")
    add("--label", default=LABEL, help="name in the names of files and tiers (engagement)")
    add("--only", default="", metavar="SESSION/ROLE", help="one participant (default: everybody)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "evaluation.export",
        build_parser(),
        lambda a: export(a.predictions, a.out_dir, a.rate_hz, a.format, a.classes, a.label, a.only),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
