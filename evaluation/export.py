"""Predictions for other tools, one file (or pair of files) per participant.

Formats, all at 25 Hz (the label rate) from second 0 of session time:
    challenge  {dataset}/{session}/{role}.engagement.prediction.csv: one `%.6f` per line, no header
    csv        ...{role}.engagement.csv: columns time_s, engagement, valid
    nova       ...{role}.engagement.annotation(~): SSI CONTINUOUS annotation for NOVA; confidence 0
               where the participant had no input
    elan       ...{role}.engagement.elan.csv: Tier, Begin, End, Annotation for ELAN's import of
               comma-separated text; one annotation per ELAN_STEP_S with the mean of its frames
Predictions on another grid are interpolated linearly. Line k always belongs to frame k.
"""

import argparse
import csv
import io
import sys
from pathlib import Path

import numpy as np

from evaluation.predictions import MATCH_S, MAX_BEYOND_S, PredictionFile, sample
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from ssi.annotation import Continuous, write_annotation
from store.atomic import write_text

log = get_logger("export")
RATE_HZ = 25.0
ELAN_STEP_S = 1.0
FORMATS = ("challenge", "csv", "nova", "elan")


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


def frame_values(
    predictions: PredictionFile, session: str, role: str, rate_hz: float = RATE_HZ
) -> np.ndarray:
    """Values of `frames`, (n,)."""
    return frames(predictions, session, role, rate_hz)[0]


def export(
    predictions: Path, out_dir: Path, rate_hz: float = RATE_HZ, form: str = "challenge"
) -> list[Path]:
    """Write every participant in one of `FORMATS`; returns the paths."""
    written = []
    with PredictionFile(predictions) as f:
        for session, role in f.participants():
            values, valid = frames(f, session, role, rate_hz)
            stem = out_dir / f.dataset / session / f"{role}.engagement"
            written.append(_write(stem, values, valid, rate_hz, form, role, f.run))
    log.info("wrote %d files under %s", len(written), out_dir)
    return written


def _write(
    stem: Path,
    values: np.ndarray,
    valid: np.ndarray,
    rate_hz: float,
    form: str,
    role: str,
    run: str,
) -> Path:
    if form == "nova":
        path = stem.with_name(stem.name + ".annotation")
        confidence = valid.astype(np.float32)
        meta = {"role": role, "annotator": run}
        scores = Continuous(
            "engagement", values.astype(np.float32), confidence, rate_hz, 0, 1, meta
        )
        write_annotation(path, scores)
        return path
    if form == "challenge":
        path = stem.with_name(stem.name + ".prediction.csv")
        write_text(path, "".join(f"{v:.6f}\n" for v in values))
        return path
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    if form == "csv":
        path = stem.with_name(stem.name + ".csv")
        rows.writerow(["time_s", "engagement", "valid"])
        for k, (value, ok) in enumerate(zip(values, valid, strict=True)):
            rows.writerow([f"{k / rate_hz:.6g}", f"{value:.6f}", int(ok)])
    else:
        path = stem.with_name(stem.name + ".elan.csv")
        rows.writerow(["Tier", "Begin", "End", "Annotation"])
        step = max(1, round(ELAN_STEP_S * rate_hz))
        for start in range(0, len(values), step):
            piece = values[start : start + step]
            end = start + len(piece)
            times = [f"{k / rate_hz:.3f}" for k in (start, end)]
            rows.writerow([f"engagement {role}", *times, f"{piece.mean():.3f}"])
    write_text(path, text.getvalue())
    return path


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.export",
        description="Export predictions: one file per participant, 25 values a second.",
    )
    parser.add_argument("--predictions", required=True, type=Path, help="predictions file (.h5)")
    parser.add_argument("--out-dir", required=True, type=Path, help="folder to write into")
    parser.add_argument("--rate-hz", type=float, default=RATE_HZ, help="values per second")
    parser.add_argument("--format", choices=FORMATS, default="challenge", help="form of the files")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "evaluation.export",
        build_parser(),
        lambda a: export(a.predictions, a.out_dir, a.rate_hz, a.format),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
