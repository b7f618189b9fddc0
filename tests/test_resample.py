"""The low-pass filter, runs and boundaries of resampling, against loops over single rows."""

import math

import numpy as np
import pytest

from alignment import resample
from alignment.resample import (
    CUTOFF_OF_OUTPUT_RATE,
    HALF_WIDTH_HOPS,
    LEAST_KERNEL,
    goes_down,
    index_map,
    interpolate,
    lowpass,
    lowpass_taps,
    runs,
    to_ticks,
)


def spacing(position, run):
    """Mean distance of each row to its neighbours in the same run; 1 for a row alone."""
    found = []
    for i, at in enumerate(position):
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(position) and run[j] == run[i]]
        found.append(sum(abs(at - position[j]) for j in beside) / len(beside) if beside else 1.0)
    return found


def taps_of(position, run, centre, centre_run, hop):
    """Row -> weight around one centre, or None where rows lie too sparsely: row by row."""
    half, cutoff = HALF_WIDTH_HOPS * hop, CUTOFF_OF_OUTPUT_RATE / hop
    stands_for = spacing(position, run)
    bump, raw = {}, {}
    for i, at in enumerate(position):
        d = at - centre
        if abs(d) <= half and run[i] == centre_run:
            bump[i] = (1 + math.cos(math.pi * d / half)) / 2 * stands_for[i]
            x = 2 * cutoff * d
            sinc = 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)
            raw[i] = 2 * cutoff * sinc * bump[i]
    total = sum(raw.values())
    if total < LEAST_KERNEL:
        return None
    weights = {i: w / total for i, w in raw.items()}
    drift = sum(w * (position[i] - centre) for i, w in weights.items())
    p0 = sum(bump.values())
    mean = sum(b * (position[i] - centre) for i, b in bump.items()) / p0
    spread = sum(b * (position[i] - centre - mean) ** 2 for i, b in bump.items())
    if spread <= 1e-9 * p0 * half**2:
        return weights if abs(drift) <= 1e-6 * hop else None
    return {
        i: w - bump[i] * drift / spread * (position[i] - centre - mean) for i, w in weights.items()
    }


def irregular(seed):
    """Rows 0.5 to 3 ticks apart with gaps; runs of 1 to 30 rows."""
    rng = np.random.default_rng(seed)
    step = np.where(rng.random(90) < 0.06, 25.0, rng.uniform(0.5, 3.0, 90))
    position = rng.uniform(0, 5) + np.cumsum(step)
    valid = rng.random(90) > 0.06
    return rng, position, valid


@pytest.mark.parametrize(("seed", "hop"), [(0, 1.0), (2, 1.0), (0, 4.0), (1, 4.0), (3, 8.0)])
def test_taps_equal_the_plain_loop(seed, hop):
    rng, position, valid = irregular(seed)
    run = runs(position, valid, 20.0)
    rows = np.flatnonzero(valid)
    centre = np.concatenate([position[rows], position[rows] + rng.uniform(0, 1, len(rows))])
    where = np.concatenate([run[rows], run[rows]])
    index, taps, dense = lowpass_taps(position, run, centre, where, hop)
    sparse = 0
    for k in range(len(centre)):
        expected = taps_of(position, run, centre[k], where[k], hop)
        assert dense[k] == (expected is not None)
        if expected is None:
            sparse += 1
            continue
        found = np.zeros(len(position))
        np.add.at(found, index[k], taps[k])
        np.testing.assert_allclose(
            found, [expected.get(i, 0.0) for i in range(len(position))], atol=1e-12
        )
        assert found.sum() == pytest.approx(1, abs=1e-12)
    assert sparse < len(centre)


def test_the_mean_of_a_constant_step_and_one_row_alone():
    position, run = np.array([0.0, 1.0, 3.0, 50.0]), np.array([0, 0, 0, 1])
    assert spacing(position, run) == [1.0, 1.5, 2.0, 1.0]  # by hand
    assert resample._spacing(position, run).tolist() == [1.0, 1.5, 2.0, 1.0]
    far = resample._spacing(np.array([0.0, 7.0, 20.0]), np.array([0, 1, 1]))
    assert far.tolist() == [1.0, 13.0, 13.0]
    both = resample._spacing(np.array([0.0, 4.0, 10.0]), np.array([0, 0, 0]))
    assert both.tolist() == [4.0, 5.0, 6.0]


def test_a_row_alone_counts_on_its_tick_only():
    """One row whose run is itself: kept where the centre lies on it, else not filtered."""
    position, run, alone = np.array([10.0]), np.array([0]), np.array([0])
    for away, on_it in ((1.5e-6, True), (3e-6, False)):  # a millionth of the hop of 2 ticks
        _, taps, dense = lowpass_taps(position, run, np.array([10.0 + away]), alone, 2.0)
        assert dense.tolist() == [on_it]
    _, taps, dense = lowpass_taps(position, run, np.array([10.0]), alone, 1.0)
    assert dense[0] and taps[0].tolist() == [1.0]
    _, _, dense = lowpass_taps(position, run, np.array([10.001]), alone, 1.0)
    assert not dense[0]


def test_no_centre_and_no_row():
    none = np.zeros(0)
    index, taps, dense = lowpass_taps(np.arange(5.0), np.zeros(5, int), none, none, 4.0)
    assert index.shape == taps.shape == (0, 1) and len(dense) == 0
    found = runs(none, none.astype(bool), 20.0)
    assert found.tolist() == [] and found.dtype == np.int64
    assert runs(np.array([3.0]), np.array([True]), 20.0).tolist() == [0]
    assert runs(np.array([3.0, 4.0]), np.array([True, True]), 20.0).tolist() == [0, 0]


@pytest.mark.parametrize("seed", [0, 2, 3])
@pytest.mark.parametrize("method", ["linear", "hold"])
def test_filtered_values_equal_the_plain_loop(seed, method):
    rng, position, valid = irregular(seed)
    rows = rng.normal(size=(90, 2))
    rows[~valid, 1] = np.nan  # one value missing: the row is not known
    ticks = np.arange(0, int(position[-1]), 2)
    row, weight = index_map(position, valid, int(position[-1]), method, 20.0, 2.0)
    row, weight = row[::2], weight[::2]
    out = lowpass(rows, position, row, weight, ticks, method, 20.0, 2.0)
    assert out.dtype == np.float32
    run, plain, filtered = runs(position, valid, 20.0), 0, 0
    for k, tick in enumerate(ticks):
        if row[k] < 0:
            assert np.isnan(out[k]).all()
            continue
        centre = position[row[k]] if method == "hold" else tick
        taps = taps_of(position, run, centre, run[row[k]], 2.0)
        if taps is None:
            expected = rows[row[k]]
            if weight[k] > 0:
                expected = expected + weight[k] * (rows[row[k] + 1] - expected)
            plain += 1
        else:
            expected = sum(w * rows[i] for i, w in taps.items())
            filtered += 1
        np.testing.assert_allclose(out[k], expected, atol=2e-6)
    assert filtered > 20 and (plain > 0 or method == "hold")


def test_half_precision_rows_are_filtered_in_single_precision():
    position = np.arange(60.0)
    rows = np.random.default_rng(0).normal(size=(60, 1)).astype(np.float16)
    row, weight = index_map(position, np.ones(60, bool), 60, "linear", 20.0, 1.0)
    ticks = np.arange(0, 60, 4)
    args = (position, row[::4], weight[::4], ticks, "linear", 20.0, 4.0)
    found = lowpass(rows, *args)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, lowpass(rows.astype(np.float64), *args))
    np.testing.assert_array_equal(found, lowpass(rows.astype(np.float32), *args))
    assert not np.array_equal(found, found.astype(np.float16))


def test_one_tick_alone_is_filtered_too():
    position, rows = np.arange(60.0), np.random.default_rng(0).normal(size=(60, 1))
    many = lowpass(
        rows, position, np.array([20, 24]), np.zeros(2), np.array([20, 24]), "linear", 20.0, 4.0
    )
    one = lowpass(rows, position, np.array([24]), np.zeros(1), np.array([24]), "linear", 20.0, 4.0)
    assert one[0] == many[1] != np.float32(rows[24])


def test_a_row_that_is_not_known_reaches_no_value():
    """Neither as NaN nor as the number that stands in for it, whichever centre is asked for."""
    position, rows = np.arange(40.0), np.ones((40, 1))
    rows[20] = np.nan
    row, weight = index_map(position, np.isfinite(rows[:, 0]), 40, "linear", 20.0, 1.0)
    out = lowpass(rows, position, row, weight, np.arange(40), "linear", 20.0, 2.0)
    assert np.flatnonzero(np.isnan(out[:, 0])).tolist() == [20]
    np.testing.assert_allclose(np.delete(out[:, 0], 20), 1.0, rtol=1e-6)


# ---- boundaries ----


def test_on_a_tick_means_within_a_millionth():
    found = to_ticks([0.01, 0.0100000099, 0.01000002, 0.25], 100)
    assert found.dtype == np.float64
    assert found.tolist() == [1.0, 1.0, pytest.approx(1.000002, abs=1e-12), 25.0]
    assert to_ticks(np.array([16777217], np.int64), 1).tolist() == [16777217.0]
    third = np.array([1 / 3], np.float32)
    assert to_ticks(third, 100.0)[0] == pytest.approx(float(third[0]) * 100, abs=1e-9)


@pytest.mark.parametrize(
    ("native", "output", "down"),
    [(100, 94.9, True), (100, 95.0, False), (100, 100, False), (25, 100, False), (0.5, 0.4, True)],
)
def test_what_counts_as_going_down(native, output, down):
    assert goes_down(native, output) is down


def test_a_gap_as_long_as_the_limit_is_bridged():
    """Also where rounding makes it longer by less than a millionth of a tick."""
    for over, together in ((0.0, True), (5e-7, True), (1e-5, False)):
        position = np.array([0.0, 20.0 + over])
        assert runs(position, np.ones(2, bool), 20.0).tolist() == [0, int(not together)]
        row, _ = index_map(position, np.ones(2, bool), 20, "linear", 20.0, 4.0)
        assert (row >= 0).sum() == (20 if together else 4)


def test_a_row_lasts_one_hop_and_not_its_last_tick():
    row, weight = index_map(np.array([2.0]), [1], 10, "hold", 20.0, 4.0)
    assert row.tolist() == [-1, -1, 0, 0, 0, 0, -1, -1, -1, -1]
    assert (row.dtype, weight.dtype) == (np.int32, np.float32)
    _, weight = index_map(np.array([0.0, 4.0]), [1, 1], 4, "linear", 20.0, 4.0)
    assert weight.tolist() == [0, 0.25, 0.5, 0.75]
    row, weight = index_map(np.array([2.0, 4.0]), [0, 1], 6, "linear", 20.0, 4.0)
    assert row.tolist() == [-1, -1, -1, -1, 1, 1]


def test_interpolated_values_are_single_precision_of_any_rows():
    rows = np.array([[1.0], [1.0009765625]], np.float16)
    out = interpolate(rows, np.array([0, -1]), np.array([0.5, 0.0], np.float32))
    assert out.dtype == np.float32 and np.isnan(out[1, 0])
    assert out[0, 0] == np.float32(1.00048828125)  # between two neighbours of half precision
    whole = interpolate(np.array([[1], [4]]), np.array([0]), np.array([0.5], np.float32))
    assert whole[0, 0] == 2.5
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    expected = np.float32(a) + np.float32(0.3) * (np.float32(b) - np.float32(a))
    found = interpolate(np.stack([a, b]), np.array([0]), np.array([0.3], np.float32))
    assert found[0].tobytes() == expected.tobytes()
    large = np.array([[0.0], [16777217.0]])
    assert interpolate(large, np.array([0]), np.array([1.0], np.float32))[0, 0] == 16777216.0
