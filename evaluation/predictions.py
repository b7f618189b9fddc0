"""Read predictions and labels, and bring a prediction to the labels' own time stamps.

Predictions file (written by inference.predict): HDF5 with root attributes run, seed, dataset,
fingerprint, schema_version and, per session and role, ``time`` (n,) s, ``engagement`` (n,),
``valid`` (n,): false where no feature of the target was present. Of a run of classes the root
attribute classes is their number and ``engagement`` the index of the likeliest one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.confusion import Confusion, not_class
from evaluation.metrics import Moments, Statistics
from runtime import InputError
from store.features import read_features
from store.hdf5 import members, open_hdf5, reading

SCHEMA_VERSION = 1
MATCH_S = 1e-6  # a label this near to a grid frame takes its value; otherwise linear interpolation
MAX_BEYOND_S = 0.5  # default: labels may outlast the predictions by this much


@dataclass(frozen=True)
class Series:
    """A value over session time: time (n,) s, values (n,) float64, valid (n,) bool.

    classes: how many there are where values are class indices, otherwise 0. words: of labels that
    are classes, what each is called.
    """

    time: np.ndarray
    values: np.ndarray
    valid: np.ndarray
    classes: int = 0
    words: tuple[str, ...] = ()


class PredictionFile:
    """Predictions of one run and seed on one dataset; a context manager."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = open_hdf5(path)
        try:
            with reading(path):
                self._read_attributes()
        except BaseException:
            self._file.close()
            raise

    def _read_attributes(self) -> None:
        path, attributes = self.path, self._file.attrs
        missing = [
            k for k in ("run", "seed", "dataset", "schema_version") if attributes.get(k) is None
        ]
        if missing or int(attributes["schema_version"]) != SCHEMA_VERSION:
            raise InputError(
                f"{path} is not a predictions file of schema {SCHEMA_VERSION}"
                + (f" (attributes missing: {', '.join(missing)})" if missing else ""),
                f"delete it and run again, it will be remade: rm '{path}'",
            )
        self.run = str(attributes["run"])
        self.seed = int(attributes["seed"])
        self.dataset = str(attributes["dataset"])
        self.classes = int(attributes.get("classes", 0))

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def participants(self) -> list[tuple[str, str]]:
        """All (session, role), sorted."""
        with reading(self.path):
            return sorted((s, r) for s in self._file for r in members(self._file, s))

    def sessions(self) -> list[str]:
        """Sessions that the file holds, sorted."""
        with reading(self.path):
            return sorted(self._file)

    def probability(self, session: str, role: str) -> np.ndarray:
        """(n, classes) of one participant; InputError where the file keeps none."""
        with reading(self.path):
            group = self._file[f"{session}/{role}"]
            found = group["probability"][()].astype(np.float64) if "probability" in group else None
        if found is None or found.ndim != 2 or found.shape[1] != self.classes:
            raise InputError(
                f"{self.path} keeps no probabilities of {session}/{role}",
                "predict with mode: window or carry; the likeliest classes alone have no mean",
            )
        return found

    def split(self, session: str) -> str:
        """train, val or test; "" where the file does not say."""
        with reading(self.path):
            return str(self._file[session].attrs.get("split", ""))

    def read(self, session: str, role: str) -> Series:
        """One participant's predictions; raises InputError when absent or unsound."""
        place = f"{session}/{role}"
        cure = f"delete it and run again, it will be remade: rm '{self.path}'"
        with reading(self.path):
            if place not in self._file:
                raise InputError(f"{self.path} holds no predictions for {place}", cure)
            group = self._file[place]
            series = Series(
                group["time"][()].astype(np.float64),
                group["engagement"][()].astype(np.float64),
                group["valid"][()].astype(bool),
                self.classes,
            )
            n = len(series.time)
        if n == 0 or series.values.shape != (n,) or series.valid.shape != (n,):
            raise InputError(
                f"{self.path}: {place} is empty or its datasets differ in length", cure
            )
        if not (np.isfinite(series.time).all() and (np.diff(series.time) > 0).all()):
            raise InputError(f"{self.path}: the time of {place} does not increase", cure)
        return series


def read_labels(path: Path) -> Series:
    """Labels at their own time stamps, in session time; values that are not valid hold NaN."""
    features = read_features(path)
    if features.values.shape[1] != 1:
        raise InputError(
            f"{path} has {features.values.shape[1]} columns, labels have one",
            f"delete it and run again, it will be remade: rm '{path}'",
        )
    words = tuple(str(word) for word in features.attributes.get("classes", ()))
    values = features.values[:, 0].astype(np.float64)
    return Series(features.time, values, features.valid, len(words), words)


def sample(series: Series, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (m,) and validity (m,) of a series at the times `at` (m,) s.

    A time within `MATCH_S` of a frame takes that frame; others are interpolated linearly between
    their neighbours (valid when both are); before the first and after the last the end is held.
    Classes are never interpolated: every time takes the nearest frame, the earlier one of two.
    """
    time, last = series.time, len(series.time) - 1
    right = np.clip(np.searchsorted(time, at), 0, last)
    left = np.clip(right - 1, 0, last)
    nearest = np.where(np.abs(time[left] - at) <= np.abs(time[right] - at), left, right)
    matched = np.abs(time[nearest] - at) <= MATCH_S
    outside = (at < time[0]) | (at > time[-1])
    single = matched | outside | (series.classes > 0)
    values = np.where(single, series.values[nearest], np.interp(at, time, series.values))
    valid = np.where(single, series.valid[nearest], series.valid[left] & series.valid[right])
    return values, valid


def agreement(
    predictions: PredictionFile, place: str, path: Path, labels: Series, values: np.ndarray
) -> Statistics:
    """Moments, or of a run of classes the confusion matrix, at the m valid labels.

    path : of the labels; values (m,). Raises InputError for what is no class of the run, and where
    labels are words and the run has not as many classes.
    """
    truth = labels.values[labels.valid]
    if labels.words and len(labels.words) != predictions.classes:
        has = f"{predictions.classes} classes" if predictions.classes else "values, no classes"
        raise InputError(
            f"{path}: {place} is rated by {len(labels.words)} words ({', '.join(labels.words)}), but "
            f"run {predictions.run} predicts {has}",
            f"set task: classification and classes: {len(labels.words)} for the run",
        )
    if not predictions.classes:
        return Moments.of(truth, values)
    for file, found in ((path, truth), (predictions.path, values)):
        wrong = not_class(found, predictions.classes)
        if wrong.any():
            raise InputError(
                f"{file}: {place} holds {found[wrong][0]:g}, which is none of the "
                f"{predictions.classes} classes of run {predictions.run}",
                f"classes are whole numbers from 0 to {predictions.classes - 1}: correct the labels, "
                "or the run's number of classes",
            )
    return Confusion.of(truth, values, predictions.classes)


def matched(
    predictions: PredictionFile, labels_path: Path, session: str, role: str, max_beyond_s: float
) -> tuple[Series, Series, np.ndarray, np.ndarray]:
    """Labels and predictions of a participant, and at the m valid labels value and validity (m,).

    Raises InputError when the labels reach more than `max_beyond_s` outside the predictions (up to
    there the first or last prediction is held) or a prediction is not a number.
    """
    labels, series = read_labels(labels_path), predictions.read(session, role)
    at = labels.time[labels.valid]
    if beyond(series, at) > max_beyond_s:
        raise InputError(
            f"{labels_path}: labels cover {at.min():.2f} to {at.max():.2f} s but the predictions of "
            f"{session}/{role} in {predictions.path} cover {series.time[0]:.2f} to {series.time[-1]:.2f} s",
            "labels and media of this participant differ in length or offset; mend them or exclude it in the sheet",
        )
    values, with_input = sample(series, at)
    check_finite(predictions, f"{session}/{role}", at, values)
    return labels, series, values, with_input


def check_finite(
    predictions: PredictionFile, place: str, at: np.ndarray, values: np.ndarray
) -> None:
    """InputError unless all values (m,) at the times `at` (m,) s are numbers."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise InputError(
            f"{predictions.path}: the prediction of {place} at {at[wrong][0]:.2f} s is not a number",
            "the training may have diverged: look at its history.jsonl, lower the learning rate, train again",
        )


def beyond(series: Series, at: np.ndarray) -> float:
    """Seconds by which the times `at` reach outside the series (0 when they do not)."""
    if len(at) == 0:
        return 0.0
    return float(max(0.0, series.time[0] - at.min(), at.max() - series.time[-1]))
