"""What audio extractors read, whether anything is heard in it, and which rows lie in a gap."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from media.audio import AudioStream, audio_blocks, is_silent
from runtime import get_logger

log = get_logger("sound")


@dataclass(frozen=True)
class Sound:
    """The sound of one person.

    audio : sound file, or video with sound. audio_channel : from 0; None: mean of all channels.
    """

    audio: str | Path
    audio_channel: int | None = None

    @property
    def inputs(self) -> dict[str, str | Path]:
        """For the sidecar: the files that are read."""
        return {"audio": self.audio}

    @property
    def settings(self) -> dict[str, object]:
        """For the sidecar: how they are read."""
        return {"audio_channel": self.audio_channel}

    @property
    def below(self) -> dict[str, object]:
        """Settings of what the feature stands on: nothing that we made."""
        return {}

    def blocks(self, rate_hz: int) -> AudioStream:
        """Mono float32 blocks at `rate_hz` from the first sample on (media.audio)."""
        return audio_blocks(self.audio, rate_hz=rate_hz, channel=self.audio_channel)


class Listener:
    """Pass blocks on and remember the loudest sample.

    blocks : float32 mono blocks (n,), full scale 1. silent: true when, after the iteration, none of
    them held a sound; then nothing computed from them is valid.
    """

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = blocks
        self._peak = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            if len(block):
                self._peak = max(self._peak, float(np.abs(block).max()))
            yield block

    @property
    def silent(self) -> bool:
        return is_silent(self._peak)


def warn_of_silence(path) -> None:
    """Say in the log that a recording's rows are all not valid, and what to look at."""
    log.warning(
        "%s is silent: no row is valid (check the microphone and the column `audio_channel`)", path
    )


def clear_of_gaps(
    start_s: np.ndarray, end_s: np.ndarray, gaps: list[tuple[float, float]]
) -> np.ndarray:
    """Rows (n,) whose stretch [start_s, end_s) touches none of the gaps [(from, to)], all in s."""
    clear = np.ones(len(start_s), bool)
    for begin, end in gaps:
        clear &= (end_s <= begin + 1e-9) | (start_s >= end - 1e-9)
    return clear
