"""From native rows to clock ticks: exact maths on arrays, no files.

Positions are in ticks (row time * rate_hz), so a tick is an integer. Rules:

* `linear`: a tick between rows i and i+1 takes a + w (b - a); it is valid if both rows are valid
  and not more than `max_gap` apart. On a row (within SNAP_TICKS) w is exactly 0 and row i alone
  counts.
* `hold`: a tick takes the latest row at or before it.
* Before a gap longer than `max_gap`, and at the end of the recording, a valid row stands for one
  hop (a video frame lasts until it ends) and no longer. Nothing is extrapolated before row 0.
* A row that is not valid makes the ticks that rest on it not valid, however short it is.
* Going down (output rate below 0.95 of the native rate) the rows are low-pass filtered first:
  zero-phase windowed sinc, -6 dB at 0.4 of the output rate, Hann window of 4 output hops each
  side, applied only inside an unbroken run of valid rows, with weights that sum to 1 and keep
  straight lines straight at the edges and at irregular rows too.
"""

import numpy as np

from alignment.clock import SNAP_TICKS
from store.aligned import METHODS

GOING_DOWN = 0.95
CUTOFF_OF_OUTPUT_RATE = 0.4
HALF_WIDTH_HOPS = 4.0
# Below this sum of raw filter weights (1 for dense rows, 0.5 at an edge) the rows lie so sparsely
# that there is nothing to filter: plain interpolation stands.
LEAST_KERNEL = 0.25


def to_ticks(time: np.ndarray, rate_hz: float) -> np.ndarray:
    """Positions (T,) in ticks of session times (T,) in s; on a tick within 1e-6 means on it."""
    position = np.asarray(time, np.float64) * rate_hz
    nearest = np.rint(position)
    return np.where(np.abs(position - nearest) < SNAP_TICKS, nearest, position)


def index_map(
    position: np.ndarray,
    valid: np.ndarray,
    n_ticks: int,
    method: str,
    max_gap: float,
    hop: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Which native rows each tick rests on.

    Parameters
    ----------
    position : (T,) increasing, ticks. valid : (T,) bool.
    method : "linear" or "hold". max_gap, hop : ticks.

    Returns
    -------
    row : (N,) int32, -1 where the tick has no valid support.
    weight : (N,) float32 in [0, 1]: share of row + 1 (0 on a row, and always for hold).
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {METHODS}")
    valid = np.asarray(valid, bool)
    tick = np.arange(n_ticks, dtype=np.float64)
    i = np.searchsorted(position, tick, side="right") - 1
    known = i >= 0
    at = np.maximum(i, 0)
    after = np.minimum(at + 1, len(position) - 1)
    age = tick - position[at]
    gap = np.where(after > at, position[after] - position[at], np.inf)
    bridged = gap <= max_gap + SNAP_TICKS
    held = valid[at] & np.where(bridged, True, age < hop - SNAP_TICKS)
    between = bridged & (age > 0)
    weight = np.zeros(n_ticks)
    if method == "linear":
        held &= ~between | valid[after]
        weight[between] = age[between] / gap[between]
    ok = known & held
    weight[~ok] = 0.0
    return np.where(ok, at, -1).astype(np.int32), weight.astype(np.float32)


def interpolate(rows: np.ndarray, row: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Values at ticks, float32 (n, D); NaN where row is -1. rows (T, D), row (n,), weight (n,).

    With weight 0 the native value comes back bit for bit (row + 1 is not touched, so its NaN or
    the sign of a zero cannot leak in).
    """
    out = np.full((len(row), rows.shape[1]), np.nan, np.float32)
    ok = row >= 0
    out[ok] = rows[row[ok]]
    mixed = ok & (weight > 0)
    if mixed.any():
        a = out[mixed]
        b = rows[row[mixed] + 1].astype(np.float32)
        out[mixed] = a + weight[mixed, None] * (b - a)
    return out


def goes_down(native_rate_hz: float, output_rate_hz: float) -> bool:
    """Whether rows must be low-pass filtered for this output rate."""
    return output_rate_hz < GOING_DOWN * native_rate_hz


def runs(position: np.ndarray, valid: np.ndarray, max_gap: float) -> np.ndarray:
    """(T,) number of the unbroken run each row belongs to; a row that is not valid is alone."""
    if len(position) == 0:
        return np.zeros(0, np.int64)
    cut = ~valid[1:] | ~valid[:-1] | (np.diff(position) > max_gap + SNAP_TICKS)
    return np.concatenate([[0], np.cumsum(cut)])


def _spacing(position: np.ndarray, run: np.ndarray) -> np.ndarray:
    """(T,) ticks each row stands for: mean distance to its neighbours in the same run (else 1)."""
    step = np.diff(position)
    same = run[1:] == run[:-1]
    total, count = np.zeros(len(position)), np.zeros(len(position))
    for side in (slice(1, None), slice(None, -1)):
        total[side] += np.where(same, step, 0.0)
        count[side] += same
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def _ordered_sum(terms: np.ndarray) -> np.ndarray:
    """Sum over axis 1, strictly left to right: trailing zeros (window size) cannot change it."""
    total = np.zeros(len(terms))
    for j in range(terms.shape[1]):
        total += terms[:, j]
    return total


def lowpass_taps(
    position: np.ndarray, run: np.ndarray, centre: np.ndarray, centre_run: np.ndarray, hop: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Filter weights around centres.

    Parameters
    ----------
    position, run : (T,) rows in ticks and their runs.
    centre, centre_run : (n,) filter centres in ticks and the run each lies in.
    hop : output hop in ticks.

    Returns
    -------
    index (n, K) rows, taps (n, K) weights (0 outside), dense (n,) bool: false where rows lie too
    sparsely for a filter.
    """
    half = HALF_WIDTH_HOPS * hop
    cutoff = CUTOFF_OF_OUTPUT_RATE / hop
    low = np.searchsorted(position, centre - half, side="left")
    high = np.searchsorted(position, centre + half, side="right")
    width = int(max(1, (high - low).max(initial=0)))
    index = low[:, None] + np.arange(width)
    inside = index < high[:, None]
    index = np.minimum(index, len(position) - 1)
    inside &= run[index] == centre_run[:, None]
    distance = position[index] - centre[:, None]
    bump = np.where(
        inside, (0.5 + 0.5 * np.cos(np.pi * distance / half)) * _spacing(position, run)[index], 0.0
    )
    taps = 2 * cutoff * np.sinc(2 * cutoff * distance) * bump
    total = _ordered_sum(taps)
    dense = total >= LEAST_KERNEL
    taps = taps / np.where(dense, total, 1.0)[:, None]
    # Shift weight with the smooth bump so that the first moment vanishes: lines stay lines.
    drift = _ordered_sum(taps * distance)
    p0, p1 = _ordered_sum(bump), _ordered_sum(bump * distance)
    p2 = _ordered_sum(bump * distance**2)
    p0 = np.where(p0 > 0, p0, 1.0)
    spread = p2 - p1**2 / p0
    solvable = spread > 1e-9 * p0 * half**2
    dense &= solvable | (np.abs(drift) <= SNAP_TICKS * hop)  # a lone row beside the tick: no filter
    slope = np.where(solvable, drift / np.where(solvable, spread, 1.0), 0.0)
    taps -= bump * slope[:, None] * (distance - (p1 / p0)[:, None])
    return index, taps, dense


def _weighted_sums(rows: np.ndarray, index: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Sums (n, D) of rows (T, D) with weights taps (n, K) at index (n, K), row after row.

    A sparse product adds strictly in the order of the rows, so a sum does not depend on what else
    is asked for, as a dense one would.
    """
    from scipy.sparse import csr_array

    used = taps != 0
    ends = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    return csr_array((taps[used], index[used], ends), shape=(len(taps), len(rows))) @ rows


def lowpass(
    rows: np.ndarray,
    position: np.ndarray,
    row: np.ndarray,
    weight: np.ndarray,
    tick: np.ndarray,
    method: str,
    max_gap: float,
    hop: float,
) -> np.ndarray:
    """Filtered values at ticks, float32 (n, D); NaN where row is -1.

    rows (T, D) with NaN in rows that are not valid, position (T,), row and weight as in
    `index_map`, tick (n,). The filter is centred on the tick (linear) or on the held row (hold).
    `rows` may be a slab of the recording if it holds every row within HALF_WIDTH_HOPS of the
    centres and one more on each side; then the result does not depend on the slab.
    """
    out = np.full((len(row), rows.shape[1]), np.nan, np.float32)
    ok = np.flatnonzero(row >= 0)
    if len(ok) == 0:
        return out
    clean = rows.astype(np.float32)
    known = np.isfinite(clean).all(axis=1)
    clean[~known] = 0.0
    run = runs(position, known, max_gap)
    at = row[ok]
    centre = position[at] if method == "hold" else tick[ok].astype(np.float64)
    index, taps, dense = lowpass_taps(position, run, centre, run[at], hop)
    total = _weighted_sums(clean, index, taps.astype(np.float32))
    out[ok[dense]] = total[dense]
    if not dense.all():
        sparse = ok[~dense]
        out[sparse] = interpolate(rows, row[sparse], weight[sparse])
    return out
