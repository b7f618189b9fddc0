"""What every audio extractor checks: that something is heard, and which rows lie in a gap."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from runtime import InputError

# A file in which no sample exceeds this (full scale = 1) is digitally silent: -80 dB.
SILENCE_PEAK = 1e-4


def audible(blocks: Iterable[np.ndarray], path: str | Path) -> Iterator[np.ndarray]:
    """Pass blocks on; at the end raise InputError when none of them held a sound.

    blocks : float32 mono blocks (n,), full scale 1.
    """
    peak, n = 0.0, 0
    for block in blocks:
        n += len(block)
        if len(block):
            peak = max(peak, float(np.abs(block).max()))
        yield block
    if peak <= SILENCE_PEAK:
        raise InputError(
            f"{path} is silent: no sample of {n} exceeds {SILENCE_PEAK:g} of full scale",
            "check the microphone and the column `audio_channel`, or exclude the participant in the sheet",
        )


def clear_of_gaps(
    start_s: np.ndarray, end_s: np.ndarray, gaps: list[tuple[float, float]]
) -> np.ndarray:
    """Rows (n,) whose stretch [start_s, end_s) touches none of the gaps [(from, to)], all in s."""
    clear = np.ones(len(start_s), bool)
    for begin, end in gaps:
        clear &= (end_s <= begin + 1e-9) | (start_s >= end - 1e-9)
    return clear
