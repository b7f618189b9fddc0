"""Normalisation statistics of a run: training sessions only, one streaming pass in float64.

Output (HDF5): for every feature a group with `mean`, `std` (D,) float64, `count` (valid frames) and
`identity` (JSON: what made the feature of every participant, store.identity);
a group `label` with mean, std and count as attributes. Root attributes: schema_version,
frame_rate_hz, sessions (JSON list of specs), fingerprint.

Python -m training.statistics reads exactly the sessions it is given; no other file can change them.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from runtime import InputError, get_logger, progress
from runtime.job import add_job_arguments, run_job
from runtime.log import command_line
from store import layout
from store.hdf5 import create_hdf5, open_hdf5, reading, remake
from store.moments import RunningMoments
from store.session_spec import parse_specs
from store.sidecar import write_sidecar
from training.identities import agreed
from training.sessions import SessionReader

log = get_logger("statistics")

SCHEMA_VERSION = 1
SLICE_FRAMES = 4096
# A dimension whose spread is this small against its size carries rounding only.
CONSTANT = 1e-6


def spread(moments: RunningMoments) -> np.ndarray:
    """Population standard deviation (D,); 1 for a constant dimension."""
    std = np.sqrt(moments.squares / max(1, moments.n))
    return np.where(std > CONSTANT * np.maximum(1.0, np.abs(moments.mean)), std, 1.0)


def compute(
    results: Path, sessions: list[str], features: list[str], frame_rate_hz: float
) -> tuple[dict[str, RunningMoments], RunningMoments]:
    """Moments per feature over the valid frames of all participants, and of the labels."""
    moments: dict[str, RunningMoments] = {}
    label = RunningMoments((1,))
    for spec in progress(parse_specs(sessions), "statistics", unit="sessions"):
        with SessionReader(results, spec, features, frame_rate_hz) as reader:
            for name, dim in reader.dims.items():
                if moments.setdefault(name, RunningMoments((dim,))).mean.shape != (dim,):
                    raise InputError(
                        f"{spec.name}: {name} has {dim} dimensions, other sessions have {len(moments[name].mean)}",
                        "extract this feature for all sessions with the same settings",
                    )
            for role in spec.roles:
                for start in range(0, reader.n_frames, SLICE_FRAMES):
                    stop = min(start + SLICE_FRAMES, reader.n_frames)
                    for name in features:
                        values, valid = reader.read(role, name, start, stop)
                        moments[name].add(values[valid])
                labels = reader.labels(role)
                if labels is None:
                    log.info("%s %s has no labels: partner only", spec.name, role)
                else:
                    label.add(labels[0][labels[1]][:, None])
    for name, m in moments.items():
        if m.n == 0:
            raise InputError(
                f"{name} is valid at no frame of the training sessions",
                "look at results/qc, exclude the sessions or leave the feature out of the run",
            )
    if label.n == 0:
        raise InputError(
            "the training sessions have no label at any frame",
            "check the column `labels` of the sessions sheet",
        )
    return moments, label


def statistics(
    results: Path,
    sessions: list[str],
    features: list[str],
    frame_rate_hz: float,
    out: Path,
    fingerprint: str = "",
) -> dict[str, int]:
    """Compute and write; returns counts for the sidecar.

    Raises InputError where participants' features are not made alike, and what `compute` raises.
    """
    made = agreed(results, parse_specs(sessions), features)
    moments, label = compute(results, sessions, features, frame_rate_hz)
    with create_hdf5(out) as new:
        f = new.file
        for name in sorted(moments):
            group = f.create_group(name)
            group["mean"], group["std"] = moments[name].mean, spread(moments[name])
            group.attrs["count"] = moments[name].n
            group.attrs["identity"] = json.dumps(made[name], sort_keys=True)
        group = f.create_group("label")
        group.attrs["mean"] = float(label.mean[0])
        group.attrs["std"] = float(spread(label)[0])
        group.attrs["count"] = label.n
        f.attrs["schema_version"] = SCHEMA_VERSION
        f.attrs["frame_rate_hz"] = float(frame_rate_hz)
        f.attrs["sessions"] = json.dumps([spec.text() for spec in parse_specs(sessions)])
        f.attrs["fingerprint"] = fingerprint
    return {"labelled_frames": label.n, **{n: m.n for n, m in sorted(moments.items())}}


def read_statistics(path: str | Path) -> tuple[dict[str, dict], dict[str, float]]:
    """feature -> {"mean" (D,), "std" (D,), "count"}, and the labels' {"mean", "std", "count"}.

    "identity", what made the feature, is absent in a file of an earlier version.
    Raises InputError for a damaged file, and for numbers that no data have.
    """
    with open_hdf5(path) as f, reading(path):
        features = {
            name: {
                "mean": f[name]["mean"][()],
                "std": f[name]["std"][()],
                "count": int(f[name].attrs["count"]),
            }
            for name in f
            if name != "label"
        }
        for name, s in features.items():
            if "identity" in f[name].attrs:
                s["identity"] = json.loads(f[name].attrs["identity"])
        label = {key: float(f["label"].attrs[key]) for key in ("mean", "std", "count")}
        for name, s in {**features, "label": label}.items():
            mean, std = np.atleast_1d(s["mean"]), np.atleast_1d(s["std"])
            sound = mean.ndim == 1 and mean.shape == std.shape and s["count"] >= 1
            if not (
                sound and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
            ):
                raise InputError(f"{path}: mean and std of {name} are no statistics", remake(path))
    return features, label


def check_described(path: Path, features: dict[str, dict], dims: dict[str, int]) -> None:
    """InputError unless the statistics of a file hold every stream with its width."""
    for name, dim in dims.items():
        if name not in features or len(features[name]["mean"]) != dim:
            raise InputError(
                f"{path} does not describe {name} with {dim} dimensions",
                "compute the statistics again with the features of this run (python -m training.statistics)",
            )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.statistics", description=__doc__)
    parser.add_argument(
        "--sessions", nargs="+", required=True, metavar="SPEC", help="dataset/session:role1,role2"
    )
    parser.add_argument("--features", nargs="+", required=True, help="features of the run")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    parser.add_argument(
        "--frame-rate-hz", type=float, default=25.0, help="frame grid, Hz (default 25)"
    )
    parser.add_argument("--out", type=Path, required=True, help="HDF5 file to write")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    def work(args: argparse.Namespace) -> None:
        start = time.monotonic()
        counts = statistics(
            args.results,
            args.sessions,
            args.features,
            args.frame_rate_hz,
            args.out,
            args.fingerprint,
        )
        specs = parse_specs(args.sessions)
        paths = [
            (s, r, Path(layout.labels(args.results, *s.key, r))) for s in specs for r in s.roles
        ]
        write_sidecar(
            args.out,
            inputs={f"label {s.name}/{r}": path for s, r, path in paths if path.exists()},
            settings={"features": args.features, "frame_rate_hz": args.frame_rate_hz},
            fingerprint=args.fingerprint,
            packages=["h5py", "numpy"],
            command=command_line("training.statistics", argv if argv is not None else sys.argv[1:]),
            counts=counts,
            seconds=time.monotonic() - start,
        )

    return run_job("training.statistics", build_parser(), work, argv)


if __name__ == "__main__":
    sys.exit(main())
