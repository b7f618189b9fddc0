"""CCC, Pearson, MAE and their moments against independent implementations."""

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.bootstrap import (
    Draws,
    interval,
    mean_draws,
    pooled_ccc,
    resample_counts,
    seed_mean_draws,
)
from evaluation.metrics import Moments, ccc, merge_all


def naive(x, y):
    """Lin's formula by plain sums in extended precision; population variance."""
    x = [np.longdouble(v) for v in x]
    y = [np.longdouble(v) for v in y]
    n = len(x)
    mx, my = sum(x) / n, sum(y) / n
    vx = sum((a - mx) ** 2 for a in x) / n
    vy = sum((b - my) ** 2 for b in y) / n
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / n
    return float(2 * cov / (vx + vy + (mx - my) ** 2))


def random_pair(rng, n, offset=0.0):
    x = rng.random(n)
    return x + offset, 0.6 * x + 0.3 * rng.random(n) + offset


@pytest.mark.parametrize("n", [2, 3, 17, 400])
def test_against_naive_scipy_numpy(n):
    x, y = random_pair(np.random.default_rng(n), n)
    m = Moments.of(x, y)
    assert m.ccc == pytest.approx(naive(x, y), abs=1e-14)
    assert m.pearson == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-13)
    assert m.mae == pytest.approx(np.mean(np.abs(x - y)), abs=1e-15)
    assert m.bias == pytest.approx(y.mean() - x.mean(), abs=1e-15)
    assert m.sd_ratio == pytest.approx(y.std() / x.std(), rel=1e-13)


def test_closed_forms():
    x = np.array([0.0, 1.0, 0.0, 1.0])
    assert ccc(x, x) == 1.0
    assert ccc(x, 1 - x) == -1.0
    # var = 1/4 each, cov = 1/4, offset 1: 2/4 / (1/2 + 1) = 1/3.
    assert ccc(x, x + 1) == pytest.approx(1 / 3, abs=1e-15)
    # Sample variance would give 0.4 instead of 1/3.
    assert ccc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx(1 / 3, abs=1e-15)


def test_far_from_zero_keeps_its_digits():
    """An offset of 1e6 costs a sum-of-squares formula about twelve digits."""
    x, y = random_pair(np.random.default_rng(1), 5000, offset=1e6)
    assert ccc(x, y) == pytest.approx(naive(x, y), abs=1e-9)
    parts = merge_all(Moments.of(x[i : i + 50], y[i : i + 50]) for i in range(0, 5000, 50))
    assert parts.ccc == pytest.approx(naive(x, y), abs=1e-9)
    textbook = np.mean(x * y) - np.mean(x) * np.mean(y)
    assert abs(textbook - np.cov(x, y, bias=True)[0, 1]) > 1e-6  # the test would notice


def test_sums_forgive_a_mean_that_is_not_exact(monkeypatch):
    """The second terms of the two-pass sums take out what the mean is off by, whatever it is."""
    x, y = random_pair(np.random.default_rng(8), 50)
    exact = Moments.of(x, y)
    monkeypatch.setattr("evaluation.metrics._centre", lambda v: (v.mean(), v - v.mean() - 0.25))
    off = Moments.of(x, y)
    for name in ("ss_truth", "ss_prediction", "cross"):
        assert getattr(off, name) == pytest.approx(getattr(exact, name), rel=1e-12)


def test_single_precision_is_widened_before_anything_is_summed():
    x, y = (v.astype(np.float32) for v in random_pair(np.random.default_rng(9), 300, 100.0))
    assert Moments.of(x, y) == Moments.of(x.astype(np.float64), y.astype(np.float64))
    assert Moments.of([0, 1, 3], [1, 1, 4]).ccc == pytest.approx(naive([0, 1, 3], [1, 1, 4]))


def test_rounding_does_not_lead_out_of_the_range_of_a_correlation():
    """A cross sum that rounding makes larger than Cauchy and Schwarz allow."""
    assert Moments(2, 0.5, 0.5, 1.0, 1.0, 1.0 + 1e-12).ccc == 1.0
    assert Moments(2, 0.5, 0.5, 1.0, 1.0, -1.0 - 1e-12).pearson == -1.0
    assert Moments(2, 0.5, 0.5, 1.0, 1.0, -1.0 - 1e-12).ccc == -1.0


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e6 + 0.1])
def test_constants_are_defined(value):
    varying = np.random.default_rng(0).random(1001)
    constant = np.full(1001, value)
    for truth, prediction in [(varying, constant), (constant, varying), (constant, constant)]:
        m = Moments.of(truth, prediction)
        assert m.ccc == 0.0
        assert math.isnan(m.pearson)
        halves = Moments.of(truth[:300], prediction[:300]).merge(
            Moments.of(truth[300:], prediction[300:])
        )
        assert halves.ccc == 0.0 and math.isnan(halves.pearson)
    assert Moments.of(constant, constant).mae == 0.0


def test_one_frame_and_none():
    assert Moments.of(np.array([0.3]), np.array([0.5])).ccc == 0.0
    empty = Moments.of(np.zeros(0), np.zeros(0))
    assert empty.n == 0
    assert all(math.isnan(v) for v in (empty.ccc, empty.pearson, empty.mae, empty.bias))
    one = Moments.of(np.array([0.3, 0.4]), np.array([0.5, 0.1]))
    assert empty.merge(one) == one == one.merge(empty)


def test_refuses_what_it_cannot_score():
    with pytest.raises(ValueError, match="finite"):
        Moments.of(np.array([0.1, np.nan]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="equal"):
        Moments.of(np.zeros(2), np.zeros(3))


def test_json_keeps_every_bit():
    m = Moments.of(*random_pair(np.random.default_rng(5), 77))
    assert Moments.from_dict(json.loads(json.dumps(m.to_dict()))) == m


# Values on a grid of 1e-3, so that a variance is either 0 or well above rounding.
LEVELS = st.integers(-1000, 1000).map(lambda k: k / 1000)


def pairs(min_size=2):
    return st.integers(min_size, 40).flatmap(
        lambda n: st.tuples(*[arrays(np.float64, n, elements=LEVELS)] * 2)
    )


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_bounded_symmetric_and_below_pearson(pair):
    x, y = pair
    m = Moments.of(x, y)
    assert -1 <= m.ccc <= 1
    assert m.ccc == pytest.approx(Moments.of(y, x).ccc, abs=1e-14)
    if not math.isnan(m.pearson):
        assert abs(m.ccc) <= abs(m.pearson) + 1e-12  # Lin 1989: |CCC| <= |r|
        assert m.ccc == pytest.approx(naive(x, y), abs=1e-11)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.floats(0.1, 10), st.floats(-10, 10), st.randoms(use_true_random=False))
def test_invariances(pair, scale, shift, random):
    """One affine map of both, and the order of frames, change nothing; a shift of one lowers |CCC|."""
    x, y = pair
    m = Moments.of(x, y)
    moved = Moments.of(scale * x + shift, scale * y + shift)
    order = list(range(len(x)))
    random.shuffle(order)
    shuffled = Moments.of(x[order], y[order])
    if m.ss_truth > 1e-9 and m.ss_prediction > 1e-9:
        assert moved.ccc == pytest.approx(m.ccc, abs=1e-9)
        assert shuffled.ccc == pytest.approx(m.ccc, abs=1e-12)
        centred = Moments.of(x - x.mean(), y - y.mean())
        assert abs(m.ccc) <= abs(centred.ccc) + 1e-12


@settings(max_examples=60, deadline=None)
@given(pairs(3), st.data())
def test_merging_equals_concatenation_in_any_order(pair, data):
    x, y = pair
    i = data.draw(st.integers(0, len(x)))
    j = data.draw(st.integers(i, len(x)))
    a, b, c = (Moments.of(x[s], y[s]) for s in (slice(0, i), slice(i, j), slice(j, None)))
    whole = Moments.of(x, y)
    for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
        assert merged.n == whole.n
        for name in whole.to_dict():
            assert getattr(merged, name) == pytest.approx(getattr(whole, name), abs=1e-10)
        assert merged.ccc == pytest.approx(whole.ccc, abs=1e-9)


def make_sessions(rng, count):
    return [
        random_pair(rng, int(rng.integers(20, 60)), offset=float(rng.random()))
        for _ in range(count)
    ]


def test_bootstrap_equals_concatenating_drawn_sessions():
    """Each resample's score from moments = the score of the frames of the drawn sessions."""
    frames = make_sessions(np.random.default_rng(2), 5)
    counts = resample_counts(5, "noxi/test", 40)
    assert counts.shape == (40, 5) and (counts.sum(axis=1) == 5).all()
    scores = pooled_ccc([Moments.of(x, y) for x, y in frames], counts)
    for row, value in zip(counts, scores, strict=True):
        x = np.concatenate([frames[s][0] for s in range(5) for _ in range(row[s])])
        y = np.concatenate([frames[s][1] for s in range(5) for _ in range(row[s])])
        assert value == pytest.approx(naive(x, y), abs=1e-11)


def test_bootstrap_of_a_constant_is_zero():
    rng = np.random.default_rng(3)
    for value in (0.1, 1 / 3):
        sessions = [Moments.of(rng.random(n), np.full(n, value)) for n in (13, 40, 7)]
        assert (pooled_ccc(sessions, resample_counts(3, "x", 200)) == 0).all()
    flat = [Moments.of(np.full(9, v), np.full(9, v)) for v in (0.1, 0.2, 0.7)]
    one_session_only = np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3]])
    assert (pooled_ccc(flat, one_session_only) == 0).all()


def test_draws_are_paired_over_runs_seeds_and_repeatable():
    a = resample_counts(6, "noxi/test", 50)
    assert (a == resample_counts(6, "noxi/test", 50)).all()
    assert (a != resample_counts(6, "mpiigi/test", 50)).any()
    frames = make_sessions(np.random.default_rng(4), 6)
    sessions = {str(i): Moments.of(x, y) for i, (x, y) in enumerate(frames)}
    one = seed_mean_draws([sessions], "noxi/test", 50)
    two = seed_mean_draws([sessions, sessions], "noxi/test", 50)
    assert (two.values == one.values).all() and two.sessions == one.sessions == (6,)
    low, high = interval(two - one)
    assert low == high == 0


def test_intervals_are_expanded_percentiles():
    """Quantiles of n sessions: Phi(-sqrt(n / (n - 1)) t(0.975, n - 1)), worked out beforehand."""
    values = np.linspace(0, 1, 100_001)
    for n, tail in ((5, 0.000954), (10, 0.008551), (20, 0.015881), (100, 0.023064)):
        low, high = interval(Draws((values,), (n,)))
        assert low == pytest.approx(tail, abs=2e-6) and high == pytest.approx(1 - tail, abs=2e-6)


def test_the_interval_of_a_mean_of_sets_is_that_of_welch():
    """Two normal samples of 6 and 40: quantiles of the mean, 1.96 -> t of Welch's freedom, expanded."""
    rng = np.random.default_rng(8)
    a, b = rng.normal(0, 1, 400_000), rng.normal(0, 0.5, 400_000)
    low, high = interval(mean_draws([Draws((a,), (6,)), Draws((b,), (40,))]))
    of_a, of_b = 1 * 6 / 5, 0.25 * 40 / 39
    freedom = (of_a + of_b) ** 2 / (of_a**2 / 5 + of_b**2 / 39)
    assert freedom == pytest.approx(7.3, abs=0.1)
    half = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(of_a + of_b) / 2
    assert (low, high) == (pytest.approx(-half, rel=0.02), pytest.approx(half, rel=0.02))
    assert mean_draws([Draws((a,), (6,)), None]) is None


@pytest.mark.parametrize("n, there", [(1, False), (4, False), (5, True)])
def test_no_interval_from_too_few_sessions(n, there):
    m = Moments.of(*random_pair(np.random.default_rng(6), 30))
    draws = seed_mean_draws([{str(k): m for k in range(n)}], "noxi/test")
    assert (draws is not None) == (interval(draws) is not None) == there
    assert interval(None) is None
    with pytest.raises(ValueError, match="different sessions"):
        seed_mean_draws([{"001": m}, {"002": m}], "noxi/test")


def test_interval_covers_like_a_bootstrap_should():
    """The spread of the draws is the standard error over fresh samples of sessions, within a factor."""
    rng = np.random.default_rng(7)

    def sample():
        out = {}
        for k in range(20):
            gain = rng.normal(0.7, 0.2)
            x = rng.random(50)
            out[str(k)] = Moments.of(x, gain * x + 0.1 * rng.random(50))
        return out

    truth = [merge_all(sample().values()).ccc for _ in range(200)]
    draws = np.mean([np.std(seed_mean_draws([sample()], "s", 200).values) for _ in range(20)])
    assert 0.7 < draws / np.std(truth) < 1.4
