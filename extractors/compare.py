"""Our feature beside a shipped stream of the same recording: do times and values agree?

    python -m extractors.compare results/features/noxi/001/expert/egemaps.h5 noxi/train/001/expert.audio.egemapsv2.stream

Prints per dimension Pearson's r at lag 0, the lag with the highest r (positive: ours comes later),
r there, and the ratio of the standard deviations (ours over theirs); a last line holds the medians.
Ours is interpolated linearly at the stream's instants; rows where either is not valid are left out.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formats.ssi.rate import ABSURD
from formats.ssi.stream import open_stream
from runtime import InputError
from runtime.job import add_job_arguments, run_job
from store.features import Features, read_features

MAX_LAG_S = 2.0
MIN_ROWS = 50


@dataclass(frozen=True)
class Agreement:
    """One dimension: r at lag 0, best lag in seconds, r there, ratio of standard deviations."""

    name: str
    r: float
    lag_s: float
    r_at_lag: float
    sd_ratio: float


def ours_at(features: Features, times: np.ndarray) -> np.ndarray:
    """(len(times), D) our values at `times`, NaN outside or beside rows that are not valid."""
    rows = features.values.astype(np.float64)
    rows[~features.valid] = np.nan
    at = [np.interp(times, features.time, column, np.nan, np.nan) for column in rows.T]
    return np.stack(at, axis=1)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r per column of a, b (n, D) over rows that are finite in both; NaN for constants."""
    both = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    if both.sum() < MIN_ROWS:
        return np.full(a.shape[1], np.nan)
    a, b = a[both] - a[both].mean(axis=0), b[both] - b[both].mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def compare(feature: Path, stream: Path, max_lag_s: float = MAX_LAG_S) -> list[Agreement]:
    """Agreement per dimension; InputError when the two cannot be of one feature or recording."""
    features, theirs = read_features(feature), open_stream(stream)
    values = np.asarray(theirs.values, np.float64)
    if values.shape[1] != features.values.shape[1]:
        raise InputError(
            f"{stream} has {values.shape[1]} columns, {feature} has {features.values.shape[1]}",
            "compare the same feature, for example egemaps with audio.egemapsv2",
        )
    values[~(np.abs(values) <= ABSURD).all(axis=1)] = np.nan
    hop = 1 / theirs.header.rate_hz
    lags = np.arange(-int(max_lag_s / hop), int(max_lag_s / hop) + 1)
    # r[l, d]: ours, read l frames later, against theirs
    r = np.stack([correlation(ours_at(features, theirs.times + lag * hop), values) for lag in lags])
    if not np.isfinite(r).any():
        raise InputError(
            f"{feature} and {stream} share fewer than {MIN_ROWS} valid instants",
            "give the feature and the stream of one recording",
        )
    here = ours_at(features, theirs.times)
    both = np.isfinite(here).all(axis=1) & np.isfinite(values).all(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = here[both].std(axis=0) / values[both].std(axis=0)
    zero = int(np.flatnonzero(lags == 0)[0])
    best = np.where(np.isnan(r), -np.inf, r).argmax(axis=0)
    lag_s = np.where(np.isnan(r).all(axis=0), np.nan, lags[best] * hop)  # a constant has none
    return [
        Agreement(name, r[zero, d], float(lag_s[d]), r[best[d], d], float(ratio[d]))
        for d, name in enumerate(features.dim_names)
    ]


def table(rows: list[Agreement]) -> str:
    """Tab-separated, a header and a line of medians."""
    median = Agreement(
        "median", *(float(np.nanmedian([getattr(row, k) for row in rows])) for k in ("r", "lag_s", "r_at_lag", "sd_ratio"))
    )  # fmt: skip
    lines = ["dimension\tr\tlag_s\tr_at_lag\tsd_ratio"]
    for row in [*rows, median]:
        lines.append(
            f"{row.name}\t{row.r:.4f}\t{row.lag_s:.3f}\t{row.r_at_lag:.4f}\t{row.sd_ratio:.4f}"
        )
    return "\n".join([*lines, ""])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extractors.compare",
        description="A feature file against a shipped SSI stream.",
    )
    parser.add_argument("feature", type=Path, help="our feature file (.h5)")
    parser.add_argument("stream", type=Path, help="X.stream of the same recording")
    parser.add_argument("--max-lag-s", type=float, default=MAX_LAG_S, help="seconds searched")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "extractors.compare",
        build_parser(),
        lambda a: sys.stdout.write(table(compare(a.feature, a.stream, a.max_lag_s))),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
