"""Agreement of predicted and true classes, from the confusion matrix.

For classes `Confusion` is what `evaluation.metrics.Moments` is for values: merging the matrices of
sessions gives exactly the score of their concatenated frames.

Cohen's kappa (Cohen 1960, Educational and Psychological Measurement 20:37, eq. 1), unweighted:

    kappa = (agreement - chance) / (1 - chance)

agreement is the share of frames with equal classes, chance the share expected from the two class
distributions alone. 0 where truth and prediction are one and the same class throughout (0/0: chance
alone agrees fully); NaN without a frame.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True, eq=False)
class Confusion:
    """counts (C, C) int64: row the true class, column the predicted one."""

    counts: np.ndarray
    metric: ClassVar[str] = "kappa"

    @classmethod
    def of(cls, truth: np.ndarray, prediction: np.ndarray, classes: int) -> "Confusion":
        """Matrix of two arrays (n,) of class indices.

        Raises ValueError on unequal shapes, or a value that is no whole number from 0 to classes - 1.
        """
        x, y = (np.asarray(v, np.float64) for v in (truth, prediction))
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"truth {x.shape} and prediction {y.shape} must be equal and 1-d")
        for values in (x, y):
            if not_class(values, classes).any():
                raise ValueError(f"classes are whole numbers from 0 to {classes - 1}")
        pairs = x.astype(np.int64) * classes + y.astype(np.int64)
        return cls(np.bincount(pairs, minlength=classes**2).reshape(classes, classes))

    @classmethod
    def empty(cls, classes: int) -> "Confusion":
        """Matrix of no frame."""
        return cls(np.zeros((classes, classes), np.int64))

    @classmethod
    def from_rows(cls, rows: list[list[int]]) -> "Confusion":
        """Inverse of `rows`. Raises ValueError when it is no square matrix of counts."""
        counts = np.array(rows)
        square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] >= 2
        if not square or counts.dtype.kind != "i" or (counts < 0).any():
            raise ValueError("a confusion matrix holds counts, one row and column per class")
        return cls(counts.astype(np.int64))

    def rows(self) -> list[list[int]]:
        """For JSON."""
        return self.counts.tolist()

    def merge(self, other: "Confusion") -> "Confusion":
        """Matrix of both sets of frames. Raises ValueError for another number of classes."""
        if other.counts.shape != self.counts.shape:
            raise ValueError(f"{len(self.counts)} and {len(other.counts)} classes do not merge")
        return Confusion(self.counts + other.counts)

    @property
    def n(self) -> int:
        """Number of frames."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Share of frames with the right class; NaN without a frame."""
        return int(np.trace(self.counts)) / self.n if self.n else math.nan

    @property
    def kappa(self) -> float:
        """Cohen's kappa; see the module docstring for where it is not defined."""
        return float(kappas(self.counts[None].astype(np.float64))[0]) if self.n else math.nan

    score = kappa


def not_class(values: np.ndarray, classes: int) -> np.ndarray:
    """True where a value (n,) is no whole number from 0 to classes - 1."""
    with np.errstate(invalid="ignore"):
        return ~((values >= 0) & (values < classes) & (values == np.floor(values)))


def kappas(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa (R,) of confusion matrices (R, C, C) with at least one frame each."""
    total = counts.sum((1, 2))  # (R,)
    agreeing = np.trace(counts, axis1=1, axis2=2)
    chance = (counts.sum(1) * counts.sum(2)).sum(1)  # times total**2; whole numbers, exact to 2^53
    certain = chance >= total**2
    below = np.where(certain, 1.0, total**2 - chance)
    return np.where(certain, 0.0, (agreeing * total - chance) / below)
