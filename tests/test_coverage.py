"""The simulation of how often intervals hold the true value."""

import numpy as np

from benchmarks import coverage
from evaluation.metrics import merge_all


def test_few_sessions_need_wider_intervals_than_plain_percentiles(monkeypatch):
    monkeypatch.setattr(coverage, "POPULATION", 2000)
    found = coverage.coverage(5, False, 60, 300, seed=3)
    assert set(found) == {"percentile", "BCa", "expanded", "of a difference", "of a mean"}
    assert found["BCa"] <= found["percentile"] < found["expanded"]
    assert 0.8 < found["expanded"] <= 1 and found["percentile"] < 0.92


def test_scipy_and_the_program_resample_the_same_score():
    """Percentiles of many resamples of one sample agree between both, within their noise."""
    rng = np.random.default_rng(0)
    sessions, _ = coverage.sample(rng, 12, False)
    draws = coverage.draws_of(sessions, "s", 20_000)
    low, high = coverage.by_scipy(sessions, "percentile", 20_000, rng)
    own = np.quantile(draws.values, [0.025, 0.975])
    assert np.abs(own - [low, high]).max() < 0.03 * (high - low) + 0.002
    assert low < merge_all(sessions).ccc < high
