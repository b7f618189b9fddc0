"""Materialise a session: dense arrays on the clock, for tools that do not know the index map.

python -m alignment.export results/aligned/noxi/020.h5 020_dense.h5 [--dtype float16]

    /time                        (N,) float64, s of session time
    /{role}/{feature}            (N, D), NaN where not valid;  attribute dim_names
    /{role}/{feature}_valid      (N,) bool
    /{role}/engagement           (n,) float32 at the labels' own time stamps, NaN where missing
    /{role}/engagement_valid     (n,) bool
    /{role}/engagement_time      (n,) float64, s of session time
"""

import argparse
import json
import sys
from pathlib import Path

import h5py
import numpy as np

from alignment.aligned import AlignedFeature
from runtime import InputError, progress
from runtime.job import add_job_arguments, run_job
from store.features import read_features
from store.hdf5 import create_hdf5, members, open_hdf5, reading, remake

BLOCK_TICKS = 8192
DTYPES = ("float32", "float16")


def linked_files(index: str | Path) -> tuple[dict[str, Path], dict[str, object]]:
    """Files behind the links of a session index ({"role/feature": path}), and its attributes."""
    index = Path(index)
    with open_hdf5(index) as f, reading(index):
        if "time" not in f or "roles" not in f.attrs:
            raise InputError(
                f"{index} is not a session index",
                "give results/aligned/DATASET/SESSION.h5",
            )
        found = {}
        for role in json.loads(f.attrs["roles"]):
            for name in members(f, role):
                link = f[role].get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    found[f"{role}/{name}"] = index.parent / link.filename
        return found, dict(f.attrs)


def export(index: str | Path, out: str | Path, dtype: str = "float32") -> None:
    """Write dense arrays of a session index; memory does not grow with the session's length.

    Raises InputError when a linked file is missing or damaged, or a value does not fit `dtype`.
    """
    files, attributes = linked_files(index)
    kind = np.dtype(dtype)
    with open_hdf5(index) as f, reading(index):
        time = f["time"][()]
    with create_hdf5(out) as new:
        f = new.file
        for name in sorted(attributes):
            f.attrs[name] = attributes[name]
        _put(f, "time", time)
        for name, path in progress(sorted(files.items()), "export", unit="feature"):
            if name.endswith("/engagement"):
                labels = read_features(path)
                _put(f, name, labels.values[:, 0])
                _put(f, name + "_valid", labels.valid)
                _put(f, name + "_time", labels.time)
            else:
                _dense(f, name, path, len(time), kind)
            new.check()


def _put(f: h5py.File, name: str, data: np.ndarray) -> None:
    f.create_dataset(name, data=data, chunks=True, compression="gzip", shuffle=True)


def _dense(f: h5py.File, name: str, path: Path, n: int, kind: np.dtype) -> None:
    with AlignedFeature(path) as feature:
        if feature.n_ticks != n:
            raise InputError(f"{path} has {feature.n_ticks} ticks, the index {n}", remake(path))
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
    parser.add_argument("session", metavar="SESSION.h5", help="index of the session")
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
