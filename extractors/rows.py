"""What an extractor gives: its columns, and its rows block by block."""

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

from extractors.sound import Listener


@dataclass
class FeatureRows:
    """The result of an extractor's function `rows`, written by extractors/run.py.

    rate_hz, window_s, hop_s, dim_names : as in store.features.FeatureAttributes.
    blocks : values (n, D), time (n,) s, valid (n,) bool, in the order of time; /time is the instant
    a row describes, and a row without input is not valid, never zero. Read once, while the file is
    written: memory must not grow with the recording.
    model_id, model_revision : the method, where no checkpoint says it. attributes : further root
    attributes of the file. counts : further counts of the sidecar, complete when all blocks are read.
    heard : who listened to the sound, if sound is read: of a silent recording no row is valid.
    """

    rate_hz: float
    window_s: float
    hop_s: float
    dim_names: list[str]
    blocks: Generator[tuple[np.ndarray, np.ndarray, np.ndarray]]
    model_id: str = ""
    model_revision: str = ""
    precision: str = "fp32"
    attributes: dict[str, object] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    heard: Listener | None = None
