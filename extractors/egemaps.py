"""`egemaps`: openSMILE eGeMAPSv02, 88 functionals over a sliding 1 s window, every 40 ms.

Row k describes the 40 ms frame k of the audio: its /time is start + k * 0.04 s (as in the
challenge's feature streams), its window the 960 ms before that instant and the 40 ms after it.
Rows 0..23 lack left context and rows whose window touches a gap of the track miss audio: both are
valid = false. There is one row for every complete 40 ms frame.

Modes
    streaming  one openSMILE pass over the recording (extractors/opensmile_stream.py)
    exact      one openSMILE call per window, as the challenge extracted its features; about 40x
               slower. The difference is the context of pitch tracking and smoothing at the window's
               edges; docs/audio.md has it per functional.
"""

from collections.abc import Iterable, Iterator
from importlib import metadata

import numpy as np
import opensmile

from extractors.opensmile_stream import FULL_SCALE, RATE_HZ, dim_names, stream_rows
from extractors.rows import FeatureRows
from extractors.sound import Listener, Sound, clear_of_gaps

HOP_S = 0.04
WINDOW_S = 1.0
CONTEXT_ROWS = 24  # 960 ms of left context


def functionals(blocks: Iterable[np.ndarray], mode: str = "streaming") -> Iterator[np.ndarray]:
    """Functionals of every complete 40 ms frame.

    Parameters
    ----------
    blocks : float32 mono blocks (n,) at 16 kHz, full scale 1, of any lengths.
    mode : "streaming" or "exact".

    Yields
    ------
    float32 (m, 88), together n_samples // 640 rows; the first 24 are NaN.
    """
    hop = round(HOP_S * RATE_HZ)
    n = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal n
        for block in blocks:
            n += len(block)
            yield block

    rows = exact_windows(counted()) if mode == "exact" else stream_rows(counted(), "func")
    pending = np.full((CONTEXT_ROWS, 88), np.nan, np.float32)
    done = 0
    for more in rows:
        pending = np.concatenate([pending, more])
        # A row may be ready a few samples before its frame is complete: hold it back.
        ready = max(0, min(len(pending), n // hop - done))
        yield pending[:ready]
        done += ready
        pending = pending[ready:]
    yield pending[: n // hop - done]


def exact_windows(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """One `process_signal` call per 1 s window, every 40 ms: float32 (m, 88) per block."""
    smile = opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals, num_workers=1
    )
    hop, window = round(HOP_S * RATE_HZ), round(WINDOW_S * RATE_HZ)
    held = np.zeros(0, np.float32)
    for block in blocks:
        # opensmile turns +1.0 into -32768: keep full scale one step below.
        block = np.clip(block, -1.0, (FULL_SCALE - 1) / FULL_SCALE)
        held = np.concatenate([held, block])
        rows = []
        while len(held) >= window:
            rows.append(smile.process_signal(held[:window], RATE_HZ).to_numpy(np.float32))
            held = held[hop:]
        if rows:
            yield np.concatenate(rows)


def rows(sound: Sound, *, mode: str) -> FeatureRows:
    """Functionals of a recording. mode : "streaming" or "exact".

    Raises InputError for unreadable audio.
    """
    stream = sound.blocks(RATE_HZ)
    heard = Listener(stream)
    counts: dict[str, int] = {}

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        done = 0
        for values in functionals(heard, mode):
            k = np.arange(done, done + len(values))
            instant = stream.start_s + k * HOP_S
            valid = (k >= CONTEXT_ROWS) & clear_of_gaps(
                instant + HOP_S - WINDOW_S, instant + HOP_S, stream.gaps
            )
            yield values, instant, valid
            done += len(values)
        counts["gaps"] = len(stream.gaps)

    return FeatureRows(
        rate_hz=1 / HOP_S,
        window_s=WINDOW_S,
        hop_s=HOP_S,
        dim_names=dim_names("func"),
        blocks=blocks(),
        model_id="openSMILE eGeMAPSv02 functionals",
        model_revision=metadata.version("opensmile"),
        attributes={"mode": mode},
        counts=counts,
        heard=heard,
    )


if __name__ == "__main__":
    raise SystemExit("the command is: python -m extractors egemaps")
