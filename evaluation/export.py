"""Export predictions as challenge files: ``{dataset}/{session}/{role}.engagement.prediction.csv``.

One value per line, ``%.6f``, no header; line k is the prediction at k/25 s of session time (the
label rate). Predictions on another grid are interpolated linearly. Missing labels do not remove
lines: the k-th line always belongs to the k-th frame.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from evaluation.predictions import MATCH_S, MAX_BEYOND_S, PredictionFile, sample
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store.atomic import write_text

log = get_logger("export")
RATE_HZ = 25.0


def export(predictions: Path, out_dir: Path, rate_hz: float = RATE_HZ) -> list[Path]:
    """Write one csv per participant; returns the paths.

    Raises InputError when a participant's predictions begin more than 0.5 s after zero (earlier
    lines would have to be invented).
    """
    written = []
    with PredictionFile(predictions) as f:
        for session, role in f.participants():
            series = f.read(session, role)
            if series.time[0] > MAX_BEYOND_S:
                raise InputError(
                    f"{predictions}: the predictions of {session}/{role} begin at {series.time[0]:.2f} s",
                    "predict again on the whole session",
                )
            n = int(np.floor((series.time[-1] + MATCH_S) * rate_hz)) + 1
            values, _ = sample(series, np.arange(n) / rate_hz)
            path = out_dir / f.dataset / session / f"{role}.engagement.prediction.csv"
            write_text(path, "".join(f"{v:.6f}\n" for v in values))
            written.append(path)
    log.info("wrote %d files under %s", len(written), out_dir)
    return written


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.export",
        description="Export predictions as csv files, one value per 25 Hz frame and line.",
    )
    parser.add_argument("--predictions", required=True, type=Path, help="predictions file (.h5)")
    parser.add_argument("--out-dir", required=True, type=Path, help="folder to write into")
    parser.add_argument("--rate-hz", type=float, default=RATE_HZ, help="lines per second")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "evaluation.export",
        build_parser(),
        lambda a: export(a.predictions, a.out_dir, a.rate_hz),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
