"""Agreement between predicted and true engagement, from sufficient statistics.

`Moments` holds what CCC, Pearson's r and the mean absolute error need: counts, means and centred
second moments. Merging the moments of sessions gives exactly the score of their concatenated
frames, so a bootstrap over sessions never touches frames again.

CCC: concordance correlation coefficient (Lin 1989, Biometrics 45:255, eq. 1) with population
variances, as the MultiMediate challenge scores it:

    CCC = 2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2)

Definitions where the formula or the question breaks down:
    CCC      0 when the prediction or the truth is constant; also when both are the same constant
             (0/0: nothing varies, so no agreement about variation was shown)
    Pearson  NaN when either is constant: it does not exist, and 0 would claim it was measured
    all      NaN without a frame
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import numpy as np

from evaluation.confusion import Confusion
from store.moments import merged_mean, step_weight

TITLES = {"ccc": "CCC", "kappa": "Cohen's kappa"}  # of the metrics that a set is scored by


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of n pairs (truth, prediction).

    ss_* are sums of squared deviations from the own mean, cross the sum of products of deviations,
    abs_error the sum of |prediction - truth|.
    """

    n: int = 0
    mean_truth: float = 0.0
    mean_prediction: float = 0.0
    ss_truth: float = 0.0
    ss_prediction: float = 0.0
    cross: float = 0.0
    abs_error: float = 0.0
    metric: ClassVar[str] = "ccc"

    @classmethod
    def of(cls, truth: np.ndarray, prediction: np.ndarray) -> "Moments":
        """Moments of two arrays (n,). Raises ValueError on unequal shapes or values not finite."""
        x = np.asarray(truth, np.float64)
        y = np.asarray(prediction, np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"truth {x.shape} and prediction {y.shape} must be equal and 1-d")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("values must be finite; mask missing frames before")
        if len(x) == 0:
            return cls()
        mean_x, dx = _centre(x)
        mean_y, dy = _centre(y)
        n = len(x)
        # Corrected two-pass sums (Chan, Golub & LeVeque 1983): the second terms are ~0.
        return cls(
            n=n,
            mean_truth=mean_x,
            mean_prediction=mean_y,
            ss_truth=float(dx @ dx - dx.sum() ** 2 / n),
            ss_prediction=float(dy @ dy - dy.sum() ** 2 / n),
            cross=float(dx @ dy - dx.sum() * dy.sum() / n),
            abs_error=float(np.abs(y - x).sum()),
        )

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of pairs together (store.moments)."""
        if self.n == 0:
            return other
        if other.n == 0:
            return self
        mean_x, step_x = merged_mean(self.n, self.mean_truth, other.n, other.mean_truth)
        mean_y, step_y = merged_mean(self.n, self.mean_prediction, other.n, other.mean_prediction)
        share = step_weight(self.n, other.n)
        return Moments(
            n=self.n + other.n,
            mean_truth=mean_x,
            mean_prediction=mean_y,
            ss_truth=self.ss_truth + other.ss_truth + step_x * step_x * share,
            ss_prediction=self.ss_prediction + other.ss_prediction + step_y * step_y * share,
            cross=self.cross + other.cross + step_x * step_y * share,
            abs_error=self.abs_error + other.abs_error,
        )

    @property
    def ccc(self) -> float:
        """Concordance correlation coefficient; 0 for a constant, NaN without a frame."""
        if self.n == 0:
            return math.nan
        if self.ss_truth <= 0 or self.ss_prediction <= 0:
            return 0.0
        offset = self.mean_truth - self.mean_prediction
        return _unit(2 * self.cross / (self.ss_truth + self.ss_prediction + self.n * offset**2))

    score = ccc

    @property
    def pearson(self) -> float:
        """Pearson's r; NaN for a constant."""
        if self.n == 0 or self.ss_truth <= 0 or self.ss_prediction <= 0:
            return math.nan
        return _unit(self.cross / (math.sqrt(self.ss_truth) * math.sqrt(self.ss_prediction)))

    @property
    def mae(self) -> float:
        """Mean absolute error, in units of the label."""
        return self.abs_error / self.n if self.n else math.nan

    @property
    def bias(self) -> float:
        """mean(prediction) - mean(truth): the location part of a CCC loss."""
        return self.mean_prediction - self.mean_truth if self.n else math.nan

    @property
    def sd_ratio(self) -> float:
        """sd(prediction) / sd(truth): the scale part of a CCC loss; NaN for a constant truth."""
        if self.n == 0 or self.ss_truth <= 0:
            return math.nan
        return math.sqrt(max(self.ss_prediction, 0.0) / self.ss_truth)

    def to_dict(self) -> dict[str, float]:
        """For JSON; `from_dict` gives the same bits back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, float]) -> "Moments":
        """Inverse of `to_dict`. Raises KeyError when a field is missing."""
        return cls(**{f.name: record[f.name] for f in fields(cls)})


# What is kept of a set of frames: enough for its score, and to be merged with others.
Statistics = Moments | Confusion


def merge_all(parts: Iterable[Statistics]) -> Statistics:
    """Statistics of the concatenation of all parts; those of no frame without a part."""
    total = None
    for part in parts:
        total = part if total is None else total.merge(part)
    return Moments() if total is None else total


def ccc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """CCC of two arrays (n,)."""
    return Moments.of(truth, prediction).ccc


def _centre(x: np.ndarray) -> tuple[float, np.ndarray]:
    # Shifted by the first value, so that a constant has exactly zero deviation.
    mean = float(x[0] + np.mean(x - x[0]))
    return mean, x - mean


def _unit(value: float) -> float:
    # Cauchy-Schwarz holds up to rounding.
    return min(1.0, max(-1.0, value))
