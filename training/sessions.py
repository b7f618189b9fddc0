"""Sessions as a model sees them: features and labels on the frame grid.

Frame k of the grid is at k / frame_rate_hz s of session time (every 4th tick of a 100 Hz clock at
25 Hz). This module needs no torch.
"""

from pathlib import Path

import numpy as np

from alignment.aligned import AlignedFeature
from runtime import InputError
from store import layout
from store.features import read_features
from store.session_spec import SessionSpec

TINY_S = 1e-6  # time stamps are float64 seconds: equal means within a microsecond


class SessionReader:
    """Features of a session's participants on the frame grid, read piece by piece.

    n_frames: frames of the grid (the clock covers the longest recording); dims: feature -> D.
    Files stay open until `close` (or the end of a `with`).
    """

    def __init__(
        self,
        results: str | Path,
        spec: SessionSpec,
        features: tuple[str, ...] | list[str],
        frame_rate_hz: float,
    ):
        self.spec, self.results, self.frame_rate_hz = spec, Path(results), frame_rate_hz
        self._files: dict[tuple[str, str], AlignedFeature] = {}
        self.dims: dict[str, int] = {}
        try:
            for role in spec.roles:
                for feature in features:
                    path = layout.aligned(results, *spec.key, role, feature)
                    self._files[role, feature] = file = AlignedFeature(path)
                    step = file.rate_hz / frame_rate_hz
                    if round(step) < 1 or abs(step - round(step)) > 1e-9:
                        raise InputError(
                            f"{path}: a clock of {file.rate_hz:g} Hz has no frame grid of {frame_rate_hz:g} Hz",
                            "choose a frame_rate_hz that divides clock.rate_hz, for example 25 and 100",
                        )
                    if self.dims.setdefault(feature, file.dim) != file.dim:
                        raise InputError(
                            f"{path} has {file.dim} dimensions, another participant has {self.dims[feature]}",
                            "extract this feature for all participants with the same settings",
                        )
            ticks = {file.n_ticks for file in self._files.values()}
            if len(ticks) != 1:
                raise InputError(
                    f"{spec.name}: aligned files have different lengths ({sorted(ticks)} ticks)",
                    f"delete {Path(layout.clock(results, *spec.key)).parent} and run again",
                )
        except BaseException:
            self.close()
            raise
        self._ticks = ticks.pop()
        self._step = round(next(iter(self._files.values())).rate_hz / frame_rate_hz)
        self.n_frames = -(-self._ticks // self._step)

    def __enter__(self) -> "SessionReader":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    def read(self, role: str, feature: str, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames start..stop of one feature: values (n, D) float32, valid (n,) bool."""
        step = self._step
        return self._files[role, feature].read(
            start * step, min(self._ticks, (stop - 1) * step + 1), step
        )

    def times(self) -> np.ndarray:
        """(n_frames,) float64, session time in seconds."""
        return np.arange(self.n_frames) / self.frame_rate_hz

    def labels(self, role: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels on the grid: (n_frames,) float32 with 0 where unknown, (n_frames,) bool known.

        None when the participant has no label file.
        """
        path = Path(layout.labels(self.results, *self.spec.key, role))
        if not path.exists():
            return None
        return labels_on_grid(path, self.times())


def check_classes(path: str | Path, labels: np.ndarray, classes: int) -> None:
    """InputError naming the file unless all labels (n,) are whole numbers from 0 to classes - 1."""
    odd = labels[(labels % 1 != 0) | (labels < 0) | (labels >= classes)]
    if len(odd):
        raise InputError(
            f"{path}: label {odd[0]:g} is none of the classes 0 to {classes - 1}",
            "correct the labels, or task and classes of the run",
        )


def labels_on_grid(path: str | Path, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Engagement at the instants `times` (n,) s: (n,) float32, (n,) bool known.

    Each instant takes the nearest label within half a label hop; missing labels stay unknown.
    """
    features = read_features(path)
    half = float(features.attributes["hop_s"]) / 2 + TINY_S
    label_time, known = features.time, features.valid
    if not len(label_time):
        return np.zeros(len(times), np.float32), np.zeros(len(times), bool)
    after = np.searchsorted(label_time, times).clip(0, len(label_time) - 1)
    before = (after - 1).clip(0)
    # A tie goes to the label before.
    nearer = np.abs(label_time[before] - times) <= np.abs(label_time[after] - times) + TINY_S
    row = np.where(nearer, before, after)
    mask = known[row] & (np.abs(label_time[row] - times) <= half)
    return np.where(mask, features.values[row, 0], 0.0).astype(np.float32), mask
