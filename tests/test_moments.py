"""Moments piece by piece against exact fractions and against the whole at once."""

from fractions import Fraction

import numpy as np
import pytest

from store.moments import RunningMoments, merged_mean, step_weight


def test_two_sets_together_by_hand():
    """1, 3 and 4, 5, 6, 9: means 2 and 6, squares 2 and 14; together mean 14/3 and squares 112/3."""
    mean, step = merged_mean(2, 2.0, 4, 6.0)
    assert step == 4.0 and mean == pytest.approx(14 / 3)
    assert 2 + 14 + step**2 * step_weight(2, 4) == pytest.approx(112 / 3)
    assert merged_mean(0, 0.0, 3, 7.0) == (7.0, 7.0) and step_weight(0, 3) == 0.0


@pytest.mark.parametrize("pieces", [1, 2, 7, 40])
def test_pieces_give_the_moments_of_the_whole(pieces):
    """Exact fractions of values around a million, where sums of squares would lose all digits."""
    rng = np.random.default_rng(pieces)
    rows = (1e6 + rng.random((40, 2))).astype(np.float32)
    moments = RunningMoments((2,))
    assert moments.mean.shape == moments.squares.shape == (2,)
    for piece in np.array_split(rows, pieces):
        moments.add(piece)
    moments.add(rows[:0])
    assert moments.n == 40
    for column in range(2):
        exact = [Fraction(float(v)) for v in rows[:, column]]
        mean = sum(exact) / 40
        assert moments.mean[column] == pytest.approx(float(mean), rel=1e-15)
        squares = sum((v - mean) ** 2 for v in exact)
        assert moments.squares[column] == pytest.approx(float(squares), rel=1e-9)


def test_one_column_needs_no_shape():
    moments = RunningMoments()
    for piece in (np.array([1.0, 3.0]), np.array([4.0, 5.0, 6.0, 9.0])):
        moments.add(piece)
    assert moments.mean == pytest.approx(14 / 3) and moments.squares == pytest.approx(112 / 3)
