"""Resampled scores against the concatenated frames of what was drawn, and intervals by hand."""

import math
import zlib

import numpy as np
import pytest
import scipy.stats

from evaluation.bootstrap import (
    MIN_SESSIONS,
    RESAMPLES,
    SEED,
    Draws,
    interval,
    mean_draws,
    pooled_ccc,
    pooled_kappa,
    pooled_scores,
    resample_counts,
    seed_mean_draws,
    too_few,
)
from evaluation.confusion import Confusion
from evaluation.metrics import Moments

RNG = np.random.default_rng(11)
PAIRS = [
    (x, 0.5 * x + 0.2 + RNG.normal(0, 0.1, n)) for n in (9, 4, 20, 7, 12) for x in [RNG.random(n)]
]


def lin(x, y):
    """Lin 1989, eq. 1."""
    cov = ((x - x.mean()) * (y - y.mean())).mean()
    return 2 * cov / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def drawn(counts, pairs=PAIRS):
    """All frames of the sessions that were drawn, as often as they were."""
    return [
        np.concatenate([np.tile(p[k], c) for p, c in zip(pairs, counts, strict=True)])
        for k in (0, 1)
    ]


@pytest.mark.parametrize("shift", [0.0, 1e4, -3.0])
def test_pooled_ccc_is_that_of_the_frames_drawn(shift):
    pairs = [(x + shift, y + shift) for x, y in PAIRS]
    counts = np.array([[1, 1, 1, 1, 1], [5, 0, 0, 0, 0], [0, 2, 0, 3, 0], [0, 0, 1, 0, 4]])
    found = pooled_ccc([Moments.of(*p) for p in pairs], counts)
    # Of the pairs without the shift, which a sum over large numbers would lose.
    np.testing.assert_allclose(
        found, [lin(*drawn(c)) for c in counts], atol=1e-10 + 1e-15 * shift**2
    )


def test_what_is_constant_scores_exactly_zero():
    """Whatever rounding leaves of its variance, on either side of zero."""
    counts = np.array([[1, 0, 0], [0, 3, 0], [0, 2, 1], [1, 1, 1]])
    for first, other in RNG.normal(size=(200, 2)):
        constant = [np.full(4, first), np.full(4, other), np.full(5, other)]
        varying = [RNG.random(4), RNG.random(4), RNG.random(5)]
        for pairs in (zip(constant, varying, strict=True), zip(varying, constant, strict=True)):
            found = pooled_ccc([Moments.of(*p) for p in pairs], counts)
            assert found[:3].tolist() == [0.0, 0.0, 0.0] and found[3] != 0.0
        same = [Moments.of(c, c) for c in constant]
        assert pooled_ccc(same, counts[:3]).tolist() == [0.0, 0.0, 0.0]


def test_pooled_kappa_is_that_of_the_frames_drawn():
    pairs = [tuple(RNG.integers(0, 3, (2, n))) for n in (9, 4, 20, 7, 12)]
    sessions = [Confusion.of(*p, 3) for p in pairs]
    counts = resample_counts(5, "x", 20)
    expected = [Confusion.of(*drawn(c, pairs), 3).kappa for c in counts]
    np.testing.assert_allclose(pooled_kappa(sessions, counts), expected, atol=1e-12)
    np.testing.assert_array_equal(pooled_scores(sessions, counts), pooled_kappa(sessions, counts))
    values = [Moments.of(*p) for p in PAIRS]
    np.testing.assert_array_equal(pooled_scores(values, counts), pooled_ccc(values, counts))


def test_a_draw_depends_on_name_number_and_seed():
    counts = resample_counts(6, "noxi/test")
    assert counts.shape == (RESAMPLES, 6) == (10_000, 6) and (counts.sum(1) == 6).all()
    assert counts.mean(0) == pytest.approx(np.ones(6), abs=0.05)
    rng = np.random.default_rng([SEED, zlib.crc32(b"noxi/test")])
    np.testing.assert_array_equal(counts, rng.multinomial(6, [1 / 6] * 6, size=RESAMPLES))
    np.testing.assert_array_equal(counts[:5], resample_counts(6, "noxi/test", 5))
    for other in (resample_counts(6, "noxi/val"), resample_counts(6, "noxi/test", seed=1)):
        assert not np.array_equal(counts, other)


def test_draws_are_means_over_seeds_of_the_same_resamples():
    first = dict(zip("abcde", (Moments.of(*p) for p in PAIRS), strict=True))
    second = {k: Moments.of(p[0], p[1] * 0.5) for k, p in zip("abcde", PAIRS, strict=True)}
    found = seed_mean_draws([first, dict(reversed(second.items()))], "x", 50, seed=3)
    counts = resample_counts(5, "x", 50, seed=3)
    parts = [pooled_ccc([s[k] for k in "abcde"], counts) for s in (first, second)]
    np.testing.assert_allclose(found.values, np.mean(parts, axis=0), atol=1e-15)
    assert found.sessions == (5,) and len(found.sets) == 1
    other = seed_mean_draws([first], "x", 50)
    np.testing.assert_array_equal(
        other.values, pooled_ccc(list(first.values()), resample_counts(5, "x", 50))
    )
    with pytest.raises(ValueError, match="seeds were scored on different sessions"):
        seed_mean_draws([first, {**first, "f": first["a"]}], "x")


def test_below_five_sessions_there_is_no_draw_and_a_reason():
    sessions = {k: Moments.of(*PAIRS[0]) for k in "abcd"}
    assert MIN_SESSIONS == 5 and seed_mean_draws([sessions], "x", 10) is None
    assert seed_mean_draws([sessions | {"e": Moments.of(*PAIRS[1])}], "x", 10) is not None
    assert interval(None) is None
    assert too_few(1) == "1 session, so no interval (it needs 5)"
    assert too_few(2) == "2 sessions, so no interval (it needs 5)"


def test_the_interval_of_one_set_reaches_as_far_as_t_does():
    """Hesterberg 2015, sec. 4.3: quantiles at Phi(-sqrt(n / (n - 1)) t)."""
    values = np.sort(RNG.normal(size=4001))
    out = math.sqrt(8 / 7) * scipy.stats.t(7).ppf(0.975)
    expected = [np.quantile(values, scipy.stats.norm.cdf(z)) for z in (-out, out)]
    assert interval(Draws((values,), (8,))) == pytest.approx(expected, abs=1e-12)
    out = math.sqrt(8 / 7) * scipy.stats.t(7).ppf(0.9)
    expected = [np.quantile(values, scipy.stats.norm.cdf(z)) for z in (-out, out)]
    assert interval(Draws((values,), (8,)), 0.8) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_a_mean_has_welchs_degrees_of_freedom():
    a, b = RNG.normal(0, 1, 3001), RNG.normal(0, 3, 3001)
    va, vb = a.var() * 5 / 4, b.var() * 10 / 9
    freedom = (va + vb) ** 2 / (va**2 / 4 + vb**2 / 9)
    out = scipy.stats.t(freedom).ppf(0.975) * math.sqrt((va + vb) / (a.var() + b.var()))
    mean = (a + b) / 2
    expected = [np.quantile(mean, scipy.stats.norm.cdf(z)) for z in (-out, out)]
    both = mean_draws([Draws((a,), (5,)), Draws((b,), (10,))])
    assert both.sessions == (5, 10) and interval(both) == pytest.approx(expected, abs=1e-12)
    assert mean_draws([both, None]) is None


def test_a_difference_keeps_its_sessions_and_nothing_varies_is_a_point():
    a, b = RNG.normal(size=(2, 1000))
    apart = Draws((a, b), (5, 6)) - Draws((b, a), (5, 6))
    assert apart.sessions == (5, 6)
    np.testing.assert_array_equal(apart.sets[0], a - b)
    assert interval(Draws((a,), (5,)) - Draws((a - 0.25,), (5,))) == pytest.approx((0.25, 0.25))
    assert interval(Draws((np.full(10, 0.5),), (5,))) == (0.5, 0.5)
