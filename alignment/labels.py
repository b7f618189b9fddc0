"""Engagement labels of one participant: csv -> feature contract with one dim, `engagement`.

Row k is at k / rate_hz + offset seconds of session time (the labels' own time stamps). A missing
value is a row with valid = false and NaN, never 0. Labels and media must end together.

python -m alignment.labels --labels L.csv --probe P.json --rate-hz 25 --offset 0 --out L.h5
"""

import argparse
import math
import sys
import time as wall
from pathlib import Path

import numpy as np

from alignment.clock import read_probe
from formats.label_rate import check_rate
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.features import FeatureAttributes, write_features
from store.sidecar import write_sidecar

log = get_logger("labels")
DIM_NAMES = ["engagement"]


def check_length(
    labels: str | Path, rows: int, rate_hz: float, probe: dict, tolerance_s: float
) -> None:
    """InputError naming both when labels and recording differ by more than tolerance_s seconds, or
    when the number of labels fits another common rate."""
    label_s, media_s = rows / rate_hz, float(probe["duration_s"])
    check_rate(labels, rows, rate_hz, media_s)
    if abs(label_s - media_s) <= tolerance_s:
        return
    place = f"{probe['dataset']}/{probe['session']}/{probe['role']}"
    raise InputError(
        f"{labels} holds {rows} labels at {rate_hz:g} Hz = {label_s:.2f} s, but the recording of "
        f"{place} lasts {media_s:.2f} s (tolerance {tolerance_s:g} s)",
        "check that both belong together and labels.rate_hz; exclude the participant or raise media.length_tolerance_s",
    )


def convert(
    labels: str | Path,
    out: str | Path,
    probe: dict,
    rate_hz: float = 25.0,
    offset_s: float = 0.0,
    length_tolerance_s: float = 2.0,
    fingerprint: str = "",
    classes: tuple[str, ...] | list[str] = (),
) -> dict[str, object]:
    """Write the label file; returns counts. Raises InputError for bad or unequally long labels.

    classes: words of a categorical rating; a label then is its word's place, from 0.
    """
    from formats.label_csv import read_labels

    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"label rate {rate_hz} Hz is not a positive number", "set labels.rate_hz")
    values = np.asarray(read_labels(labels, classes), np.float64)
    if len(values) == 0:
        raise InputError(
            f"{labels} holds no label",
            "correct the path, or leave the column `labels` empty (features and predictions are still made)",
        )
    check_length(labels, len(values), rate_hz, probe, length_tolerance_s)
    valid = np.isfinite(values)
    attributes = FeatureAttributes(
        feature="engagement",
        native_rate_hz=rate_hz,
        window_s=0.0,
        hop_s=1.0 / rate_hz,
        dim_names=DIM_NAMES,
        extractor="alignment.labels",
        fingerprint=fingerprint,
        extra={"offset_s": float(offset_s)} | ({"classes": list(classes)} if classes else {}),
    )
    time = np.arange(len(values)) / rate_hz + offset_s
    write_features(out, values[:, None], time, valid, attributes)
    counts = {"rows": len(values), "missing": int((~valid).sum())}
    log.info("%d labels, %d of them missing", counts["rows"], counts["missing"])
    return counts


def run(args: argparse.Namespace, command: str) -> None:
    """The job: convert, then the sidecar."""
    start = wall.monotonic()
    counts = convert(
        args.labels,
        args.out,
        read_probe(args.probe),
        args.rate_hz,
        args.offset,
        args.length_tolerance_s,
        args.fingerprint,
        args.classes,
    )
    write_sidecar(
        args.out,
        inputs={"labels": args.labels, "probe": args.probe},
        settings={
            "rate_hz": args.rate_hz,
            "offset_s": args.offset,
            "length_tolerance_s": args.length_tolerance_s,
            "classes": args.classes,
        },
        fingerprint=args.fingerprint,
        packages=["h5py", "numpy"],
        command=command,
        counts=counts,
        seconds=wall.monotonic() - start,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignment.labels",
        description="Read one participant's engagement labels; missing values are masked, never 0.",
    )
    parser.add_argument("--labels", required=True, metavar="CSV", help="one value a line")
    parser.add_argument("--probe", required=True, metavar="JSON", help="participant's probe file")
    parser.add_argument("--rate-hz", type=float, default=25.0, help="labels per second")
    parser.add_argument(
        "--offset",
        type=float,
        default=0.0,
        help="seconds this recording started later than the session's zero",
    )
    parser.add_argument(
        "--classes",
        nargs="*",
        default=[],
        metavar="WORD",
        help="words of a categorical rating, in their order (default: numbers from 0 to 1)",
    )
    parser.add_argument(
        "--length-tolerance-s",
        type=float,
        default=2.0,
        help="labels and recording may differ by this many seconds; more is an error",
    )
    parser.add_argument("--out", required=True, metavar="H5", help="label file to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_job(
        "alignment.labels",
        build_parser(),
        lambda a: run(a, command_line("alignment.labels", argv)),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
