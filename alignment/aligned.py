"""Read an aligned file (store.aligned) on the session's clock, at any rate."""

import json
from pathlib import Path

import numpy as np

from alignment.resample import HALF_WIDTH_HOPS, goes_down, interpolate, lowpass, to_ticks
from store.hdf5 import open_hdf5, reading


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
