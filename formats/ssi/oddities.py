"""What the values of a stream show: two microphones in one body, columns that tell the time, -1.

The doctor reports these, and `extractors.stream` warns of them or refuses.
"""

import numpy as np

from formats.ssi.rate import ABSURD

SAMPLE_ROWS = 2000
# Two microphones before one mouth agree in most columns; unrelated rows do not.
SAME_INSTANT_R = 0.5
OPENFACE, OPENFACE_DIM, LEAKING = "openface2", 714, 3
OPENPOSE, UNDETECTED = "openpose", -1
# Which half of a body of twice the rows: left and right half of every row of twice the width (two
# microphones side by side), or the first and second half of the rows (one after the other).
SIDE_BY_SIDE, ONE_AFTER_THE_OTHER = ("left", "right"), ("first", "second")


def sample(values: np.ndarray) -> np.ndarray:
    """At most about 2 x SAMPLE_ROWS rows of values (n, D), spread evenly; float64."""
    step = max(1, len(values) // SAMPLE_ROWS)
    return np.asarray(values[::step], np.float64)


def half(values: np.ndarray, which: str) -> np.ndarray:
    """One recording of two: values (2n, D) -> (n, D), a view. which: left, right, first, second."""
    n = len(values) // 2
    if which in SIDE_BY_SIDE:
        return values[SIDE_BY_SIDE.index(which) :: 2]
    return values[:n] if which == "first" else values[n:]


def arrangement(values: np.ndarray) -> tuple[str, ...]:
    """How two recordings of the same instants lie in values (2n, D): SIDE_BY_SIDE,
    ONE_AFTER_THE_OTHER, or () where the values do not tell.

    Both halves of the rows describe the same instants only when they lie one after the other:
    then row k and row n + k agree (median correlation over the columns). Neighbouring rows agree
    in both cases, so they are asked second.
    """
    n = len(values) // 2
    rows = np.arange(0, n, max(1, n // SAMPLE_ROWS))
    if _agreement(values[rows], values[n + rows]) > SAME_INSTANT_R:
        return ONE_AFTER_THE_OTHER
    if _agreement(values[2 * rows], values[2 * rows + 1]) > SAME_INSTANT_R:
        return SIDE_BY_SIDE
    return ()


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Median over the columns of Pearson's r of a, b (n, D); 0 without rows or variation."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    usable = ((np.abs(a) <= ABSURD) & (np.abs(b) <= ABSURD)).all(axis=1)  # False for NaN
    if usable.sum() < 3:
        return 0.0
    a, b = a[usable] - a[usable].mean(axis=0), b[usable] - b[usable].mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    varies = scale > 0
    return float(np.median((a * b).sum(axis=0)[varies] / scale[varies])) if varies.any() else 0.0


def holds_doubles(words: np.ndarray) -> bool:
    """Whether 4-byte words (2n,) '<u4', low word first, are n doubles and no 2n floats.

    The low half of a double is the end of its mantissa. Read as a float it has any exponent; where
    the doubles were integers, floats or short fractions before, it ends in at least 29 zero bits.
    Floats of a recording have neither. All zeros tell nothing: False.
    """
    low, high = words[0::2], words[1::2]
    doubles = np.ascontiguousarray(words).view("<f8")
    if (high == 0).mean() > 0.5 or not _ordinary(doubles):
        return False
    short = (low & np.uint32((1 << 29) - 1)) == 0
    return bool(short.mean() > 0.99) or _strange(low.view("<f4")) > 0.4


def holds_floats(words: np.ndarray) -> bool:
    """Whether 4-byte words (2n,) '<u4' are 2n floats and no n doubles."""
    return bool(words.any()) and not holds_doubles(words) and _ordinary(words.view("<f4"))


def _strange(values: np.ndarray) -> float:
    """Share of values that no recording has: not finite, absurdly large or small."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        size = np.abs(values.astype(np.float64))
    return float((~(size <= ABSURD) | ((size > 0) & (size < 1 / ABSURD))).mean())


def _ordinary(values: np.ndarray) -> bool:
    return _strange(values) < 0.01


def leaks_time(name: str, rows: np.ndarray) -> bool:
    """Whether these rows (n, D) of a stream begin with OpenFace2's frame counter."""
    if name != OPENFACE or rows.shape[1] != OPENFACE_DIM or len(rows) < 2:
        return False
    return bool((np.diff(rows[:, 0]) > 0).all())


def undetected(name: str, rows: np.ndarray) -> float:
    """Share of OpenPose's values that are -1 in rows (n, D); 0 for other streams."""
    return float((rows == UNDETECTED).mean()) if name == OPENPOSE and rows.size else 0.0
