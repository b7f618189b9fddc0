"""A feature file as an SSI stream, for people who use other tools.

    python -m formats.ssi.export results/features/noxi/001/expert/egemaps.h5 --out expert.egemaps.stream

SSI streams have a rate and a start, no time stamps: a feature whose rows are not evenly spaced is
refused. Rows that are not valid hold NaN.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from formats.ssi.stream import write_stream
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from store.features import read_features

log = get_logger("formats.ssi.export")

JITTER_S = 0.001  # frame times of a camera are rounded to milliseconds in some containers


def export(feature: Path, out: Path) -> int:
    """Write `out` and `out~`; returns the rows. Raises InputError for unevenly spaced rows."""
    features = read_features(feature)
    time, n = features.time, len(features.time)
    if not n:
        raise InputError(f"{feature} has no rows", "nothing to export")
    rate = float(features.attributes["native_rate_hz"])
    if n > 1:
        rate = (n - 1) / float(time[-1] - time[0])
        even = time[0] + np.arange(n) / rate
        worst = int(np.abs(time - even).argmax())
        if abs(time[worst] - even[worst]) > JITTER_S:
            raise InputError(
                f"{feature}: row {worst} is at {time[worst]:.4f} s, evenly spaced it would be at {even[worst]:.4f} s",
                "an SSI stream cannot hold this; export the aligned feature instead (python -m alignment.export)",
            )
    rate = round(rate) if abs(rate - round(rate)) < 1e-6 * rate else rate
    meta = {"feature": str(features.attributes["feature"])}
    write_stream(out, features.values, rate, chunks=[(float(time[0]), n)], meta=meta)
    log.info("%d rows of %d at %g Hz", n, features.values.shape[1], rate)
    return n


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m formats.ssi.export", description="Write a feature file as an SSI stream."
    )
    parser.add_argument("feature", type=Path, help="feature file (.h5)")
    parser.add_argument("--out", type=Path, required=True, help="header to write (X.stream)")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job("formats.ssi.export", build_parser(), lambda a: export(a.feature, a.out), argv)


if __name__ == "__main__":
    sys.exit(main())
