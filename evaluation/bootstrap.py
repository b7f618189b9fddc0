"""Bootstrap that resamples sessions, not frames: frames of one session are not independent.

All roles of a session are drawn together. A resample is a vector of counts (how often each session
was drawn); the pooled CCC (Cohen's kappa of classes) of all resamples comes from the sessions'
moments (confusion matrices) in one matrix product.

The draw depends on the name of the set, the number of sessions and the base seed alone, so every
run and every seed of a model sees the same resamples: differences between runs are paired.
Intervals are percentile intervals. With one session nothing can be resampled: no interval.
"""

import zlib

import numpy as np

from evaluation.confusion import Confusion, kappas
from evaluation.metrics import Moments, Statistics

RESAMPLES = 1000
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


def seed_mean_draws(
    seeds: list[dict[str, Statistics]], name: str, resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray | None:
    """Resampled pooled scores, averaged over seeds: (R,), or None with fewer than two sessions.

    seeds: one mapping session -> statistics per seed, all with the same sessions.
    """
    names = sorted(seeds[0])
    if any(sorted(s) != names for s in seeds):
        raise ValueError("seeds were scored on different sessions")
    if len(names) < 2:
        return None
    counts = resample_counts(len(names), name, resamples, seed)
    return np.mean([pooled_scores([s[k] for k in names], counts) for s in seeds], axis=0)


def interval(draws: np.ndarray | None, level: float = LEVEL) -> tuple[float, float] | None:
    """Percentile interval (low, high) of draws (R,); None without draws."""
    if draws is None:
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
