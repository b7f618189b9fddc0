"""Bring one feature of one participant onto the session's clock.

python -m alignment.align --feature F.h5 --clock clock.json --offset 0 --method linear --out A.h5
"""

import argparse
import json
import math
import sys
import time as wall
from pathlib import Path

from alignment.clock import read_clock
from alignment.resample import index_map, to_ticks
from runtime import InputError, get_logger
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store.aligned import write_aligned
from store.features import Declared, check_declared, check_features
from store.hdf5 import open_hdf5, reading, remake
from store.identity import PRECOMPUTED
from store.sidecar import write_sidecar

log = get_logger("align")
DEFAULT_MAX_GAP_S = 0.2
# Rows may lie this far behind the clock (a stream that ends a little later than its container
# says); more means the file belongs to another recording. Sound may begin before the picture, from
# which the clock runs.
END_TOLERANCE_S = 0.5


def align(
    feature: str | Path,
    clock: str | Path,
    out: str | Path,
    offset_s: float = 0.0,
    method: str = "linear",
    max_gap_s: float = DEFAULT_MAX_GAP_S,
    fingerprint: str = "",
    declared: Declared | None = None,
) -> dict[str, object]:
    """Write the aligned file (store/aligned.py) of a feature file; returns counts.

    A precomputed stream has the rate it came with: where its rows lie further apart than the gap
    limit (NoXi's XLM-R of 2 Hz), its hop is the limit, logged. Raises InputError for a damaged
    file, a file that is not the `declared` feature, a feature without rows, a gap limit shorter than the hop of a feature of ours, or rows
    that lie behind the clock by more than END_TOLERANCE_S, or all before it.
    """
    with reading(feature):
        problems = check_features(feature)
    if problems:
        raise InputError(f"{feature}: {problems[0]}", remake(feature))
    axis = read_clock(clock)
    asked = {"method": method, "max_gap_s": float(max_gap_s)}
    with open_hdf5(feature) as f:
        with reading(feature):
            native = dict(f.attrs)
            time = f["time"][()] + offset_s
            valid = f["valid"][()]
            hop_s, native_rate = float(native["hop_s"]), float(native["native_rate_hz"])
            if declared is not None:
                check_declared(feature, native, declared)
        if native.get("extractor") == PRECOMPUTED and hop_s > max_gap_s:
            log.warning(
                "%s: rows are %g s apart, the gap limit is %g s: %g s are bridged here",
                feature, hop_s, max_gap_s, hop_s,
            )  # fmt: skip
            max_gap_s = hop_s
        _check_times(feature, time, axis.duration_s, hop_s, native_rate, max_gap_s)
        row, weight = index_map(
            to_ticks(time, axis.rate_hz),
            valid,
            axis.n_ticks,
            method,
            max_gap_s * axis.rate_hz,
            hop_s * axis.rate_hz,
        )
        attributes = {
            **native,
            "rate_hz": axis.rate_hz,
            "n_ticks": axis.n_ticks,
            "method": method,
            "offset_s": float(offset_s),
            "max_gap_s": float(max_gap_s),
            "feature_fingerprint": native["fingerprint"],
            "fingerprint": fingerprint,
        }
        if "settings" in native:  # a file of an earlier version does not say what made it
            with reading(feature):
                settings = json.loads(native["settings"]) | {"align": asked}
            attributes["settings"] = json.dumps(settings, sort_keys=True)
        write_aligned(out, f["values"], time, row, weight, attributes)
    counts = {
        "rows": int(len(time)),
        "valid_rows": int(valid.sum()),
        "ticks": int(axis.n_ticks),
        "valid_ticks": int((row >= 0).sum()),
    }
    log.info("%d of %d ticks are valid", counts["valid_ticks"], counts["ticks"])
    return counts


def _check_times(feature, time, duration_s, hop_s, native_rate, max_gap_s) -> None:
    if len(time) == 0:
        raise InputError(
            f"{feature} has no rows: the recording is too short for this feature",
            "exclude the participant in the sessions sheet",
        )
    if not (math.isfinite(hop_s) and hop_s > 0 and math.isfinite(native_rate) and native_rate > 0):
        raise InputError(
            f"{feature}: hop {hop_s} s at {native_rate} Hz is no rate", remake(feature)
        )
    if max_gap_s < hop_s * (1 - 1e-6):
        raise InputError(
            f"{feature}: the gap limit {max_gap_s:g} s is shorter than the feature's hop {hop_s:g} s",
            f"set features.{Path(feature).stem}.align.max_gap_s in the config to at least the hop",
        )
    if time[-1] - duration_s > END_TOLERANCE_S or time[-1] < 0:
        raise InputError(
            f"{feature} spans {time[0]:.3f}..{time[-1]:.3f} s of session time, the clock 0..{duration_s:.3f} s",
            "correct `offset` in the sessions sheet; if it is right, delete the feature and the clock and run again",
        )


def run(args: argparse.Namespace, command: str) -> None:
    """The job: align, then the sidecar."""
    start = wall.monotonic()
    declared = None
    if args.extractor:
        name = Path(args.feature).stem
        declared = Declared(name, args.extractor, args.dimensions, args.native_rate_hz)
    counts = align(
        args.feature, args.clock, args.out, args.offset, args.method, args.max_gap_s,
        args.fingerprint, declared,
    )  # fmt: skip
    write_sidecar(
        args.out,
        inputs={"feature": args.feature, "clock": args.clock},
        settings={"method": args.method, "offset_s": args.offset, "max_gap_s": args.max_gap_s},
        fingerprint=args.fingerprint,
        packages=["h5py", "numpy"],
        command=command,
        counts=counts,
        seconds=wall.monotonic() - start,
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignment.align",
        description="Bring one feature of one participant onto the session's clock.",
    )
    parser.add_argument("--feature", required=True, metavar="H5", help="feature file (native rate)")
    parser.add_argument("--clock", required=True, metavar="JSON", help="clock.json of the session")
    parser.add_argument(
        "--offset",
        type=float,
        default=0.0,
        help="seconds this recording started later than the session's zero",
    )
    parser.add_argument(
        "--method",
        choices=("linear", "hold"),
        default="linear",
        help="linear: between neighbours; hold: the latest row",
    )
    parser.add_argument(
        "--max-gap-s",
        type=float,
        default=DEFAULT_MAX_GAP_S,
        help="rows farther apart than this (seconds) are not bridged",
    )
    parser.add_argument("--out", required=True, metavar="H5", help="aligned file to write")
    parser.add_argument(
        "--extractor",
        metavar="MODULE",
        help="module that must have computed the feature, whose name must be the file's",
    )
    parser.add_argument(
        "--dimensions", type=int, help="columns that the feature must have (with --extractor)"
    )
    parser.add_argument(
        "--native-rate-hz",
        type=float,
        metavar="HZ",
        help="rows per second that the feature must have (with --extractor)",
    )
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_job(
        "alignment.align",
        build_parser(),
        lambda a: run(a, command_line("alignment.align", argv)),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
