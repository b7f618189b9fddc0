"""Mean and squared deviations of data that come piece by piece, in float64.

Two sets with counts n and m and means a and b together have (Chan, Golub & LeVeque 1983, eq. 2.1)

    mean      a + (b - a) m / (n + m)
    squares   those of both, and (b - a)^2 n m / (n + m)

which loses nothing where the naive difference of sums of squares does.
"""

import numpy as np


def merged_mean(n, mean, other_n, other_mean):
    """Mean of two sets together, and the step from the first mean to the other.

    n, other_n : counts, not both 0. mean, other_mean : numbers, or arrays of equal shape.
    """
    step = other_mean - mean
    return mean + step * (other_n / (n + other_n)), step


def step_weight(n, other_n) -> float:
    """What products of two steps between means weigh in the merged sums: n m / (n + m)."""
    return n * (other_n / (n + other_n))


class RunningMoments:
    """Count, mean and sum of squared deviations of rows (n, ...), block by block.

    shape : of one row; mean and squares have it.
    """

    def __init__(self, shape: tuple[int, ...] = ()):
        self.n = 0
        self.mean = np.zeros(shape)
        self.squares = np.zeros(shape)

    def add(self, rows: np.ndarray) -> None:
        """Add rows (n, *shape), all finite."""
        if len(rows):
            rows = rows.astype(np.float64)
            mean = rows.mean(axis=0)
            self._merge(len(rows), mean, ((rows - mean) ** 2).sum(axis=0))

    def _merge(self, n: int, mean: np.ndarray, squares: np.ndarray) -> None:
        weight = step_weight(self.n, n)
        self.mean, step = merged_mean(self.n, self.mean, n, mean)
        self.squares = self.squares + squares + step**2 * weight
        self.n += n
