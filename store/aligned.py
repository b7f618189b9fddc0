"""The aligned file: a feature on the session's clock, as native rows plus an index map (HDF5).

Layout (schema version 1)
    /values       (T, D) the native rows as stored (same type, NaN where not valid), contiguous
    /native_time  (T,)   float64, session time of the rows, s
    /row          (N,)   int32, native row of each tick, -1 where the tick is not valid
    /weight       (N,)   float32, share of row + 1 at the tick (0: the row alone)
Tick k is at k / rate_hz s of session time and has the value
    values[row[k]] + weight[k] * (values[row[k] + 1] - values[row[k]])
Root attributes: those of the feature file, and rate_hz, n_ticks, method, offset_s, max_gap_s,
feature_fingerprint (of the feature file), fingerprint (of the alignment); `settings` holds those of
the alignment too, under `align`.

Native rows are far fewer than ticks, so this costs little more than the feature itself, and the
way back to the native rate is exact. `alignment.aligned` reads values on the clock.
"""

import json
from pathlib import Path

import h5py
import numpy as np

from store.features import REQUIRED_ATTRIBUTES
from store.hdf5 import DAMAGE, create_hdf5, open_hdf5, reading

SCHEMA_VERSION = 1
METHODS = ("linear", "hold")
ALIGNED_ATTRIBUTES = (
    "rate_hz",
    "n_ticks",
    "method",
    "offset_s",
    "max_gap_s",
    "feature_fingerprint",
)
BLOCK_BYTES = 1 << 24
MAP_CHUNK = 1 << 14


def write_aligned(
    path: str | Path,
    source: h5py.Dataset,
    native_time: np.ndarray,
    row: np.ndarray,
    weight: np.ndarray,
    attributes: dict[str, object],
) -> None:
    """Write an aligned file; `source` (T, D) is copied block by block, memory is constant.

    native_time (T,) session seconds; row, weight (N,) from `alignment.resample.index_map`.
    """
    rows, dim = source.shape
    with create_hdf5(path) as new:
        f = new.file
        values = f.create_dataset("values", (rows, dim), source.dtype)
        step = max(1, BLOCK_BYTES // (dim * source.dtype.itemsize))
        for start in range(0, rows, step):
            with reading(source.file.filename):
                block = source[start : start + step]
            values[start : start + step] = block
            new.check()
        for name, data in (("native_time", native_time), ("row", row), ("weight", weight)):
            f.create_dataset(
                name,
                data=data,
                chunks=(min(MAP_CHUNK, len(data)),),
                compression="gzip",
                compression_opts=4,
                shuffle=True,
            )
        for name in sorted(attributes):
            f.attrs[name] = attributes[name]


def check_aligned(path: str | Path) -> list[str]:
    """Check an aligned file against the contract; returns problems, empty when sound."""
    with open_hdf5(path) as f, reading(path):
        missing = [n for n in (*REQUIRED_ATTRIBUTES, *ALIGNED_ATTRIBUTES) if n not in f.attrs]
        if missing:
            return [f"attributes missing: {', '.join(missing)}"]
        for name in ("values", "native_time", "row", "weight"):
            if name not in f:
                return [f"dataset /{name} is missing"]
        try:
            return _check_content(f)
        except DAMAGE as e:
            return [f"unreadable data ({' '.join(str(e).split())[:120]})"]


def _check_content(f: h5py.File) -> list[str]:
    problems = []
    if int(f.attrs["schema_version"]) != SCHEMA_VERSION:
        return [f"schema version {f.attrs['schema_version']}, this program reads {SCHEMA_VERSION}"]
    values, time = f["values"], f["native_time"][()]
    row, weight = f["row"][()], f["weight"][()]
    n, dim = int(f.attrs["n_ticks"]), len(json.loads(f.attrs["dim_names"]))
    if values.ndim != 2 or values.shape[1] != dim or values.dtype.kind != "f":
        return [f"/values is {values.shape} {values.dtype}, dim_names name {dim} columns"]
    if not len(row) == len(weight) == n or len(time) != len(values):
        return [
            f"lengths differ: row {len(row)}, weight {len(weight)}, n_ticks {n}, "
            f"values {len(values)}, native_time {len(time)}"
        ]
    if str(f.attrs["method"]) not in METHODS or not float(f.attrs["rate_hz"]) > 0:
        problems.append(f"method {f.attrs['method']!r} at {f.attrs['rate_hz']} Hz is unknown")
    if not np.isfinite(time).all() or (np.diff(time) <= 0).any():
        problems.append("/native_time is not finite and increasing")
    if not ((weight >= 0) & (weight <= 1)).all():
        problems.append("/weight leaves 0..1")
    used = row[row >= 0]
    top = row + (weight > 0)
    if (row < -1).any() or (top[row >= 0] >= len(values)).any() or (np.diff(used) < 0).any():
        return [*problems, "/row points outside /values or goes backwards"]
    needed = np.zeros(len(values), bool)
    needed[used] = True
    needed[top[row >= 0]] = True
    step = max(1, BLOCK_BYTES // max(1, dim * values.dtype.itemsize))
    for start in range(0, len(values), step):
        block = values[start : start + step]
        if not np.isfinite(block[needed[start : start + step]]).all():
            problems.append(
                f"a valid tick rests on a row in {start}..{start + len(block)} that is not finite"
            )
            break
    return problems
