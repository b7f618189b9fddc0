"""Bootstrap that resamples sessions, not frames: frames of one session are not independent.

All roles of a session are drawn together. A resample is a vector of counts (how often each session
was drawn); the pooled CCC (Cohen's kappa of classes) of all resamples comes from the sessions'
moments (confusion matrices) in one matrix product.

The draw depends on the name of the set, the number of sessions and the base seed alone, so every
run and every seed of a model sees the same resamples: differences between runs are paired.

Intervals are expanded percentile intervals (Hesterberg 2015, What Teachers Should Know About the
Bootstrap, The American Statistician 69:371, section 4.3): resamples of n sessions spread too little
by sqrt((n - 1) / n) and have normal tails, so their quantiles are taken further out, as far as a t
interval is wider than a normal one. Below MIN_SESSIONS there is none. `python -m benchmarks.coverage`
measures how often they hold the true value, beside plain percentile and BCa intervals.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to load

from evaluation.confusion import Confusion, kappas
from evaluation.metrics import Moments, Statistics

# The quantiles of an interval lie far out: of five sessions, one resample in a thousand.
RESAMPLES = 10_000
MIN_SESSIONS = 5
SEED = 20250915
LEVEL = 0.95


def resample_counts(
    n_sessions: int, name: str, resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray:
    """Counts (resamples, n_sessions), each row summing to n_sessions; deterministic per name."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.multinomial(n_sessions, np.full(n_sessions, 1 / n_sessions), size=resamples)


def pooled_ccc(sessions: list[Moments], counts: np.ndarray) -> np.ndarray:
    """Pooled CCC (R,) of each row of counts (R, S) over the sessions' moments (S)."""
    n = np.array([m.n for m in sessions], np.float64)  # (S,)
    x = np.array([m.mean_truth for m in sessions])
    y = np.array([m.mean_prediction for m in sessions])
    # Means relative to the first session: a constant prediction keeps exactly zero variance.
    x, y = x - x[0], y - y[0]
    offset = sessions[0].mean_truth - sessions[0].mean_prediction
    ss_x = np.array([m.ss_truth for m in sessions]) + n * x * x
    ss_y = np.array([m.ss_prediction for m in sessions]) + n * y * y
    cross = np.array([m.cross for m in sessions]) + n * x * y
    total = counts @ n  # (R,)
    mean_x, mean_y = (counts @ (n * x)) / total, (counts @ (n * y)) / total
    var_x = (counts @ ss_x) / total - mean_x**2
    var_y = (counts @ ss_y) / total - mean_y**2
    cov = (counts @ cross) / total - mean_x * mean_y
    below = var_x + var_y + (mean_x - mean_y + offset) ** 2
    # What rounding leaves of a constant counts as constant.
    varies = (var_x > 1e-14 * mean_x**2) & (var_y > 1e-14 * mean_y**2)
    return np.where(varies, 2 * cov / np.where(varies, below, 1.0), 0.0)


def pooled_kappa(sessions: list[Confusion], counts: np.ndarray) -> np.ndarray:
    """Pooled Cohen's kappa (R,) of each row of counts (R, S) over the sessions' matrices (S)."""
    matrices = np.stack([m.counts for m in sessions]).astype(np.float64)  # (S, C, C)
    return kappas(np.tensordot(counts, matrices, 1))


def pooled_scores(sessions: list[Statistics], counts: np.ndarray) -> np.ndarray:
    """`pooled_ccc` or `pooled_kappa`, whichever the sessions are scored by."""
    of = pooled_kappa if isinstance(sessions[0], Confusion) else pooled_ccc
    return of(sessions, counts)


@dataclass(frozen=True)
class Draws:
    """Resampled scores of sets that were resampled independently; stands for the mean over the sets.

    sets : (R,) of each; sessions : how many sessions each was drawn from.
    """

    sets: tuple[np.ndarray, ...]
    sessions: tuple[int, ...]

    @property
    def values(self) -> np.ndarray:
        """Resampled mean over the sets (R,)."""
        return np.mean(self.sets, axis=0)

    def __sub__(self, other: "Draws") -> "Draws":
        """Paired differences: both from the same resamples of the same sessions."""
        pairs = zip(self.sets, other.sets, strict=True)
        return Draws(tuple(a - b for a, b in pairs), self.sessions)


def mean_draws(parts: Sequence[Draws | None]) -> Draws | None:
    """Of the mean over several sets; None where one of them has no draws."""
    if any(p is None for p in parts):
        return None
    return Draws(
        tuple(s for p in parts for s in p.sets), tuple(n for p in parts for n in p.sessions)
    )


def seed_mean_draws(
    seeds: list[dict[str, Statistics]], name: str, resamples: int = RESAMPLES, seed: int = SEED
) -> Draws | None:
    """Resampled pooled scores of a set, averaged over seeds; None with fewer than MIN_SESSIONS.

    seeds: one mapping session -> statistics per seed, all with the same sessions.
    """
    names = sorted(seeds[0])
    if any(sorted(s) != names for s in seeds):
        raise ValueError("seeds were scored on different sessions")
    if len(names) < MIN_SESSIONS:
        return None
    counts = resample_counts(len(names), name, resamples, seed)
    values = np.mean([pooled_scores([s[k] for k in names], counts) for s in seeds], axis=0)
    return Draws((values,), (len(names),))


def interval(draws: Draws | None, level: float = LEVEL) -> tuple[float, float] | None:
    """Expanded percentile interval (low, high); None without draws.

    Of one set of n sessions the quantiles lie sqrt(n / (n - 1)) t(n - 1) standard deviations out; of
    a mean over sets each variance is expanded so, and t has the degrees of freedom of Welch 1947.
    """
    if draws is None:
        return None
    values, n = draws.values, np.array(draws.sessions, np.float64)
    variance = np.var(draws.sets, axis=1)
    expanded = variance * n / (n - 1)
    if not expanded.sum() > 0:
        return float(values.min()), float(values.max())
    freedom = expanded.sum() ** 2 / (expanded**2 / (n - 1)).sum()
    out = stdtrit(freedom, (1 + level) / 2) * np.sqrt(expanded.sum() / variance.sum())
    low, high = np.quantile(values, [ndtr(-out), ndtr(out)])
    return float(low), float(high)


def too_few(n_sessions: int) -> str:
    """Why a set has no interval, for a footnote."""
    counted = "1 session" if n_sessions == 1 else f"{n_sessions} sessions"
    return f"{counted}, so no interval (it needs {MIN_SESSIONS})"
