"""Materialise a session: dense arrays on the clock, for tools that do not know the index map.

python -m alignment.export results/aligned/noxi/020 020.h5 [--dtype float16]

    /time                        (N,) float64, s of session time
    /{role}/{feature}            (N, D), NaN where not valid;  attribute dim_names
    /{role}/{feature}_valid      (N,) bool
    /{role}/engagement           (n,) float32 at the labels' own time stamps, NaN where missing
    /{role}/engagement_valid     (n,) bool
    /{role}/engagement_time      (n,) float64, s of session time
Root attributes: dataset, session, rate_hz, n_ticks, roles and features (JSON lists), schema_version.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np

from alignment.aligned import AlignedFeature
from alignment.clock import read_clock
from runtime import InputError, progress
from runtime.job import add_job_arguments, run_job
from store import layout
from store.features import read_features
from store.hdf5 import create_hdf5, remake

BLOCK_TICKS = 8192
DTYPES = ("float32", "float16")


SCHEMA_VERSION = 1


def files_of(session: str | Path) -> dict[str, Path]:
    """Aligned features and labels of a session's folder below results/aligned: "role/name" -> file.

    Raises InputError where the folder holds no aligned feature.
    """
    folder = Path(os.path.abspath(session))
    results, key = folder.parents[2], folder.parts[-2:]
    found = {f"{p.parent.name}/{p.stem}": p for p in folder.glob("*/*.h5")}
    if not found or Path(layout.clock(results, *key)).parent != folder:
        raise InputError(
            f"{session} holds no aligned features", "give results/aligned/DATASET/SESSION"
        )
    for role in {name.partition("/")[0] for name in found}:
        labels = Path(layout.labels(results, *key, role))
        if labels.is_file():
            found[f"{role}/engagement"] = labels
    return dict(sorted(found.items()))


def export(session: str | Path, out: str | Path, dtype: str = "float32") -> None:
    """Write dense arrays of a session's folder; memory does not grow with the session's length.

    Raises InputError when a file is missing or damaged, or a value does not fit `dtype`.
    """
    files = files_of(session)
    kind = np.dtype(dtype)
    folder = Path(os.path.abspath(session))
    dataset, name = folder.parts[-2:]
    clock = read_clock(layout.clock(folder.parents[2], dataset, name))
    roles, names = (sorted({n.split("/")[i] for n in files} - {"engagement"}) for i in (0, 1))
    attributes = {
        "dataset": dataset,
        "features": json.dumps(names),
        "n_ticks": clock.n_ticks,
        "rate_hz": clock.rate_hz,
        "roles": json.dumps(roles),
        "schema_version": SCHEMA_VERSION,
        "session": name,
    }
    with create_hdf5(out) as new:
        f = new.file
        for key in attributes:
            f.attrs[key] = attributes[key]
        _put(f, "time", np.arange(clock.n_ticks) / clock.rate_hz)
        for place, path in progress(files.items(), "export", unit="feature"):
            if place.endswith("/engagement"):
                labels = read_features(path)
                _put(f, place, labels.values[:, 0])
                _put(f, place + "_valid", labels.valid)
                _put(f, place + "_time", labels.time)
            else:
                _dense(f, place, path, clock.n_ticks, kind)
            new.check()


def _put(f: h5py.File, name: str, data: np.ndarray) -> None:
    f.create_dataset(name, data=data, chunks=True, compression="gzip", shuffle=True)


def _dense(f: h5py.File, name: str, path: Path, n: int, kind: np.dtype) -> None:
    with AlignedFeature(path) as feature:
        if feature.n_ticks != n:
            raise InputError(
                f"{path} has {feature.n_ticks} ticks, its session's clock {n}", remake(path)
            )
        values = f.create_dataset(
            name,
            (n, feature.dim),
            kind,
            chunks=(min(n, 1024), feature.dim),
            compression="gzip",
            shuffle=True,
        )
        values.attrs["dim_names"] = json.dumps(feature.dim_names)
        valid = np.zeros(n, bool)
        for start in range(0, n, BLOCK_TICKS):
            stop = min(n, start + BLOCK_TICKS)
            block, valid[start:stop] = feature.read(start, stop)
            if np.nanmax(np.abs(block), initial=0) > np.finfo(kind).max:
                raise InputError(f"{path}: a value does not fit into {kind}", "use --dtype float32")
            values[start:stop] = block.astype(kind)
        _put(f, name + "_valid", valid)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignment.export",
        description="Write a session's features as dense arrays on the clock, labels beside them.",
    )
    parser.add_argument(
        "session", metavar="FOLDER", help="folder of the session below results/aligned"
    )
    parser.add_argument("out", metavar="OUT.h5", help="file to write")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="type of the values")
    add_job_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    return run_job(
        "alignment.export", build_parser(), lambda a: export(a.session, a.out, a.dtype), argv
    )


if __name__ == "__main__":
    sys.exit(main())
