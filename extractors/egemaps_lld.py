"""`egemaps_lld`: openSMILE eGeMAPSv02, the 25 low-level descriptors, every 10 ms.

/time of a row is the centre of its 20 ms analysis frame: row j looks at the audio from
j * 10 ms to j * 10 ms + 20 ms, so it describes start + j * 0.01 + 0.01 s. The descriptors that hang
on the pitch (F0, jitter, shimmer, HNR, harmonics, formant amplitudes) look at 60 ms from the same
left edge, that is from 10 ms before to 50 ms after /time. openSMILE then smooths all of them over
three rows, and its pitch tracker decides with up to 0.4 s of what follows.
"""

from collections.abc import Iterator
from importlib import metadata

import numpy as np

from extractors.opensmile_stream import RATE_HZ, dim_names, stream_rows
from extractors.rows import FeatureRows
from extractors.sound import Listener, Sound, clear_of_gaps

HOP_S = 0.01
FRAME_S = 0.02
# Audio behind a row: 60 ms frames of the pitch, one more row on both sides from the smoothing.
BEFORE_S = 0.02
AFTER_S = 0.06


def rows(sound: Sound) -> FeatureRows:
    """Low-level descriptors of a recording.

    Raises InputError for unreadable audio.
    """
    stream = sound.blocks(RATE_HZ)
    heard = Listener(stream)
    counts: dict[str, int] = {}

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        done = 0
        for values in stream_rows(heard, "lld"):
            instant = stream.start_s + np.arange(done, done + len(values)) * HOP_S + FRAME_S / 2
            valid = clear_of_gaps(instant - BEFORE_S, instant + AFTER_S, stream.gaps)
            yield values, instant, valid
            done += len(values)
        counts["gaps"] = len(stream.gaps)

    return FeatureRows(
        rate_hz=1 / HOP_S,
        window_s=FRAME_S,
        hop_s=HOP_S,
        dim_names=dim_names("lld"),
        blocks=blocks(),
        model_id="openSMILE eGeMAPSv02 low-level descriptors",
        model_revision=metadata.version("opensmile"),
        counts=counts,
        heard=heard,
    )


if __name__ == "__main__":
    raise SystemExit("the command is: python -m extractors egemaps_lld")
