"""The aligned file: a feature on the session's clock, as native rows plus an index map (HDF5).

Layout (schema version 1)
    /values       (T, D) the native rows as stored (same type, NaN where not valid), contiguous
    /native_time  (T,)   float64, session time of the rows, s
    /row          (N,)   int32, native row of each tick, -1 where the tick is not valid
    /weight       (N,)   float32, share of row + 1 at the tick (0: the row alone)
Tick k is at k / rate_hz s of session time and has the value
    values[row[k]] + weight[k] * (values[row[k] + 1] - values[row[k]])
Root attributes: those of the feature file, and rate_hz, n_ticks, method, offset_s, max_gap_s,
feature_fingerprint (of the feature file), fingerprint (of the alignment).

Native rows are far fewer than ticks, so this costs little more than the feature itself, and the
way back to the native rate is exact.
"""

import json
from pathlib import Path

import h5py
import numpy as np

from alignment.resample import HALF_WIDTH_HOPS, METHODS, goes_down, interpolate, lowpass, to_ticks
from store.features import REQUIRED_ATTRIBUTES
from store.hdf5 import DAMAGE, create_hdf5, open_hdf5, reading

SCHEMA_VERSION = 1
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

    native_time (T,) session seconds; row, weight (N,) from `resample.index_map`.
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


class AlignedFeature:
    """Read a feature on the clock.

    >>> with AlignedFeature(path) as feature:                     # doctest: +SKIP
    ...     values, valid = feature.read(0, feature.n_ticks, 4)   # 25 Hz grid of a 100 Hz clock

    Attributes: rate_hz, n_ticks, dim, dim_names (list), feature (name), native_rate_hz, method,
    offset_s, max_gap_s, attributes (all). Raises InputError for a missing or damaged file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = open_hdf5(self.path)
        with reading(self.path):
            try:
                a = dict(self._file.attrs)
                self.attributes = a
                self.feature = str(a["feature"])
                self.rate_hz = float(a["rate_hz"])
                self.n_ticks = int(a["n_ticks"])
                self.native_rate_hz = float(a["native_rate_hz"])
                self.method = str(a["method"])
                self.offset_s = float(a["offset_s"])
                self.max_gap_s = float(a["max_gap_s"])
                self.dim_names = list(json.loads(a["dim_names"]))
                self._values = self._file["values"]
                self._row = self._file["row"]
                self._weight = self._file["weight"]
                self.dim = int(self._values.shape[1])
            except BaseException:
                self._file.close()
                raise
        self._position: np.ndarray | None = None

    def __enter__(self) -> "AlignedFeature":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def _check(self, start: int, stop: int, step: int) -> None:
        if not (0 <= start <= stop <= self.n_ticks and step >= 1):
            raise ValueError(
                f"{self.path.name}: ticks {start}:{stop}:{step} are not within 0..{self.n_ticks}"
            )

    def valid(self, start: int, stop: int, step: int = 1) -> np.ndarray:
        """(n,) bool of ticks start, start + step, ... < stop, without reading values."""
        self._check(start, stop, step)
        with reading(self.path):
            return self._row[start:stop][::step] >= 0

    def read(self, start: int, stop: int, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Ticks start, start + step, ... < stop: values (n, D) float32, valid (n,) bool.

        Rows that are not valid are NaN. If rate_hz / step lies below the native rate, the rows
        are low-pass filtered (alignment/resample.py), so a coarse grid does not alias; at the
        native rate and above, native values come back bit for bit. A part of the ticks read alone
        equals the same ticks read together, bit for bit.
        """
        self._check(start, stop, step)
        with reading(self.path):
            row = self._row[start:stop][::step]
            weight = self._weight[start:stop][::step]
            valid = row >= 0
            if not valid.any():
                return np.full((len(row), self.dim), np.nan, np.float32), valid
            used = row[valid]
            low, high = int(used[0]), int(used[-1] + 1 + (weight[valid][-1] > 0))
            if not goes_down(self.native_rate_hz, self.rate_hz / step):
                rows = self._values[low:high]
                return interpolate(rows, np.where(valid, row - low, -1), weight), valid
            if self._position is None:
                self._position = to_ticks(self._file["native_time"][()], self.rate_hz)
            position = self._position
            tick = np.arange(start, stop, step)
            reach = HALF_WIDTH_HOPS * step
            low = max(0, int(np.searchsorted(position, position[low] - reach)) - 1)
            last = max(position[used[-1]], tick[valid][-1])
            high = int(np.searchsorted(position, last + reach, side="right")) + 1
            out = lowpass(
                self._values[low:high],
                position[low:high],
                np.where(valid, row - low, -1),
                weight,
                tick,
                self.method,
                self.max_gap_s * self.rate_hz,
                float(step),
            )
            return out, valid


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
