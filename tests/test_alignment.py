"""Index map and filter: against closed forms, np.interp, scipy and plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import firwin

from alignment.resample import (
    CUTOFF_OF_OUTPUT_RATE,
    HALF_WIDTH_HOPS,
    index_map,
    interpolate,
    lowpass,
    lowpass_taps,
    runs,
    to_ticks,
)

RATE = 100.0
NATIVE_RATES = (10.0, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 50.0, 59.94, 100.0)


def on_ticks(values, time, valid, n_ticks, method="linear", max_gap_s=0.2, hop_s=0.04, rate=RATE):
    """Whole recording on the clock: values (N, D) float32, valid (N,)."""
    row, weight = index_map(
        to_ticks(time, rate), valid, n_ticks, method, max_gap_s * rate, hop_s * rate
    )
    return interpolate(np.asarray(values), row, weight), row >= 0


# ---- exactness ----


@pytest.mark.parametrize("method", ["linear", "hold"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_25_to_100_to_25_returns_native_bits(method, dtype):
    rng = np.random.default_rng(0)
    time = np.arange(2000) * 0.04
    values = rng.standard_normal((2000, 3)).astype(dtype)
    values[10] = -0.0
    valid = rng.random(2000) > 0.1
    values[~valid] = np.nan
    out, ok = on_ticks(values, time, valid, 8000, method)
    back = out[::4].astype(dtype)
    assert np.array_equal(ok[::4], valid)
    assert back[valid].tobytes() == values[valid].tobytes()


@pytest.mark.parametrize("shift", [0.0, 1.24, 7.77])
def test_offsets_on_the_grid_move_rows_by_whole_ticks(shift):
    values = np.random.default_rng(1).standard_normal((500, 2)).astype(np.float32)
    out, ok = on_ticks(values, np.arange(500) / 25 + shift, np.ones(500, bool), 3000)
    first = round(shift * 100)
    assert not ok[:first].any()
    assert np.array_equal(out[first : first + 2000 : 4], values)


@pytest.mark.parametrize("native", NATIVE_RATES)
@pytest.mark.parametrize("offset", [0.0, 0.0137, 2.5])
def test_a_line_stays_a_line_and_a_sine_stays_within_the_interpolation_bound(native, offset):
    time = np.arange(int(20 * native)) / native + offset
    tick = np.arange(2300) / RATE
    omega = 2 * np.pi * 0.9
    values = np.stack([3.0 * time - 7.0, np.sin(omega * time)], axis=1)
    row, weight = index_map(
        to_ticks(time, RATE), np.ones(len(time), bool), 2300, "linear", 20.0, RATE / native
    )
    out = interpolate(values, row, weight)
    inside = (row >= 0) & (tick <= time[-1])
    assert inside.sum() == (((tick >= time[0] - 1e-9) & (tick <= time[-1] + 1e-9)).sum())
    line = 3.0 * tick - 7.0
    np.testing.assert_allclose(out[inside, 0], line[inside], atol=2e-5)
    # |error| of linear interpolation <= h^2 / 8 * max |f''|
    bound = (omega / native) ** 2 / 8 + 1e-6
    assert np.abs(out[inside, 1] - np.sin(omega * tick[inside])).max() <= bound


def test_a_step_appears_at_its_row():
    time = np.arange(100) / 25
    values = (time >= 2.0).astype(np.float32)[:, None]
    held, _ = on_ticks(values, time, np.ones(100, bool), 400, "hold")
    assert np.array_equal(held[:, 0], (np.arange(400) >= 200).astype(np.float32))
    linear, _ = on_ticks(values, time, np.ones(100, bool), 400)
    np.testing.assert_allclose(linear[196:201, 0], [0, 0.25, 0.5, 0.75, 1])


def test_last_row_lasts_one_hop_and_nothing_comes_before_the_first():
    time = 0.5 + np.arange(25) * 0.04
    for method in ("linear", "hold"):
        _, ok = on_ticks(np.ones((25, 1)), time, np.ones(25, bool), 300, method)
        assert np.flatnonzero(ok).tolist() == list(range(50, 150))


def test_gaps_longer_than_the_limit_stay_open():
    time = np.concatenate([np.arange(25) * 0.04, 1.2 + np.arange(25) * 0.04])  # 0.24 s apart
    valid = np.ones(50, bool)
    for method in ("linear", "hold"):
        _, ok = on_ticks(np.ones((50, 1)), time, valid, 220, method, max_gap_s=0.2)
        assert np.flatnonzero(~ok).tolist() == list(range(100, 120))
        _, ok = on_ticks(np.ones((50, 1)), time, valid, 220, method, max_gap_s=0.24)
        assert ok.all()


def oracle_tick(position, values, valid, tick, method, max_gap, hop):
    """One tick, written from the rules without vectors. Value (D,) or None."""
    i = None
    for j, p in enumerate(position):
        if p <= tick:
            i = j
    if i is None or not valid[i]:
        return None
    following = position[i + 1] if i + 1 < len(position) else None
    if following is None or following - position[i] > max_gap:
        return values[i] if tick - position[i] < hop else None
    if method == "hold" or tick == position[i]:
        return values[i]
    if not valid[i + 1]:
        return None
    share = (tick - position[i]) / (following - position[i])
    return (1 - share) * values[i] + share * values[i + 1]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=25),
    st.integers(0, 200),
    st.integers(1, 5),
    st.sampled_from(["linear", "hold"]),
    st.integers(0, 2**32 - 1),
)
def test_index_map_equals_the_plain_loop(steps, start, divisor, method, seed):
    # Times on a grid of 1/divisor ticks: irregular rows, gaps, offsets; some exactly on ticks.
    position = (start + np.cumsum(steps)) / divisor
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((len(position), 2))
    valid = rng.random(len(position)) > 0.25
    values[~valid] = np.nan
    n, max_gap, hop = int(position[-1]) + 20, 20.5, 4.1
    row, weight = index_map(position, valid, n, method, max_gap, hop)
    out = interpolate(values, row, weight)
    for tick in range(n):
        expected = oracle_tick(position, values, valid, tick, method, max_gap, hop)
        if expected is None:
            assert row[tick] == -1 and np.isnan(out[tick]).all() and weight[tick] == 0
        else:
            np.testing.assert_allclose(out[tick], expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 3), st.sampled_from(NATIVE_RATES))
def test_linear_equals_numpy_interp(seed, offset, native):
    rng = np.random.default_rng(seed)
    time = np.cumsum(rng.uniform(0.5, 1.5, 60)) / native + offset  # variable frame rate
    values = rng.standard_normal((60, 1))
    out, ok = on_ticks(values, time, np.ones(60, bool), 1200, hop_s=1 / native)
    tick = np.arange(1200) / RATE
    inside = (tick >= time[0]) & (tick <= time[-1])
    assert ok[inside].all()
    np.testing.assert_allclose(
        out[inside, 0], np.interp(tick[inside], time, values[:, 0]), atol=1e-5
    )


# ---- going down ----


def filtered(values, time, valid, rate, n_ticks, step=1, method="linear", native=50.0):
    """Every `step`-th tick, filtered for the output rate rate / step."""
    position = to_ticks(time, rate)
    gap, hop = 0.2 * rate, rate / native
    row, weight = index_map(position, valid, n_ticks, method, gap, hop)
    tick = np.arange(0, n_ticks, step)
    rows = np.where(valid[:, None], values, np.nan)
    out = lowpass(rows, position, row[::step], weight[::step], tick, method, gap, float(step))
    return out, row[::step] >= 0


def test_filter_equals_scipys_hann_fir_on_a_regular_grid():
    position = np.arange(400) * 2.0  # 50 Hz rows on a 100 Hz clock, read at 25 Hz
    centre = np.array([400.0])
    _, taps, dense = lowpass_taps(position, np.zeros(400, int), centre, np.zeros(1, int), 4.0)
    assert dense.all()
    # scipy's ideal response, the symmetric Hann window from numpy.
    expected = firwin(17, CUTOFF_OF_OUTPUT_RATE * 25, fs=50, window="boxcar", scale=False)
    expected *= np.hanning(17)
    expected /= expected.sum()
    np.testing.assert_allclose(taps[0], expected, atol=1e-12)
    assert HALF_WIDTH_HOPS * 4.0 / 2.0 == 8


@pytest.mark.parametrize("native", [30000 / 1001, 50.0, 100.0])
@pytest.mark.parametrize("offset", [0.0, 0.0125])
def test_going_down_keeps_lines_and_slow_sines_and_removes_what_would_alias(native, offset):
    time = np.arange(int(20 * native)) / native + offset
    n = 2000
    values = np.stack(
        [3.0 * time - 7.0, np.sin(2 * np.pi * 2.0 * time), np.sin(2 * np.pi * 14.0 * time)], axis=1
    )
    out, ok = filtered(values, time, np.ones(len(time), bool), RATE, n, 5, native=native)
    tick = np.arange(0, n, 5) / RATE
    np.testing.assert_allclose(out[ok, 0], (3.0 * tick - 7.0)[ok], atol=1e-4)  # edges too
    inner = ok & (tick > 0.5) & (tick < 19.0)
    assert np.abs(out[inner, 1] - np.sin(2 * np.pi * 2.0 * tick[inner])).max() < 0.02
    assert np.abs(out[inner, 2]).max() < 0.01  # 14 Hz at 20 Hz would appear as 6 Hz


def test_filter_stays_inside_runs_of_valid_rows():
    time = np.arange(500) / 50
    values = np.where(time < 5, 1.0, 1000.0)[:, None]
    valid = np.ones(500, bool)
    valid[250:253] = False  # the jump lies behind rows that are not valid
    out, ok = filtered(values, time, valid, RATE, 1000, 4)
    tick = np.arange(0, 1000, 4) / RATE
    assert not ok[(tick > 4.98) & (tick < 5.06)].any()
    np.testing.assert_allclose(out[ok & (tick < 5), 0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(out[ok & (tick > 5), 0], 1000.0, rtol=1e-6)


def test_filter_holds_the_row_it_stands_on():
    rng = np.random.default_rng(3)
    time = np.arange(400) / 50 + 0.005
    values = rng.standard_normal((400, 1))
    out, ok = filtered(values, time, np.ones(400, bool), RATE, 800, 4, "hold")
    same, _ = filtered(values, time - 0.005, np.ones(400, bool), RATE, 800, 4, "hold")
    # tick 4k lies 15 ms after row 2k - 1: the filtered value of that row
    centre = 41
    index, taps, _ = lowpass_taps(
        to_ticks(time, RATE), np.zeros(400, int), to_ticks(time, RATE)[[centre]], np.zeros(1, int), 4.0
    )  # fmt: skip
    assert ok[21]
    np.testing.assert_allclose(out[21, 0], (taps[0] * values[index[0], 0]).sum(), rtol=1e-5)
    assert not np.allclose(out[5:-5], same[5:-5])


def test_sparse_rows_are_interpolated_not_filtered():
    time = np.array([0.0, 0.15, 0.3, 0.45, 0.6])
    values = np.array([[0.0], [1.5], [3.0], [4.5], [6.0]])
    out, ok = filtered(values, time, np.ones(5, bool), RATE, 60, 1)
    tick = np.arange(60) / RATE
    np.testing.assert_allclose(out[ok, 0], np.interp(tick[ok], time, values[:, 0]), atol=1e-5)


def test_runs_break_at_gaps_and_invalid_rows():
    position = np.array([0, 4, 8, 40, 44, 48.0])
    valid = np.array([1, 1, 1, 1, 0, 1], bool)
    assert runs(position, valid, 20.0).tolist() == [0, 0, 0, 1, 2, 3]
