"""Run openSMILE as a stream: blocks in, rows out, memory independent of length, no seams.

`opensmile.Smile.process_signal` holds a whole file and every level of it (2.4 GB for one hour).
The library underneath can be fed while it runs: here the audio level and the levels before the
functionals are ring buffers, one thread runs openSMILE, the caller's thread writes samples and
waits when the ring is full. The analysis itself is that of one whole-file pass, bit for bit, and
does not depend on how the audio is cut into blocks.

eGeMAPSv02 over a sliding window
    openSMILE slides by itself when its functionals get a fixed frame. A call of `process_signal` on
    1.00 s of audio summarises 99 of the 20 ms analysis frames (10 ms step; loudness, spectral flux,
    MFCC, level) but only 94 of what is joined to the pitch, whose frames are 60 ms long. One frame
    length for all would be wrong for one half of the functionals, so both are set here.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import opensmile
from opensmile.core.lib import OpenSMILE

from runtime import InputError

RATE_HZ = 16000
FULL_SCALE = 32768
# Longest wait between two levels is the pitch's (jitter looks back 2.5 s): 10 s of audio is ample.
RING_S = 10
PIECE = RATE_HZ

FRAMES_SHORT = 99  # 20 ms frames that fit into 1.00 s: 0.98 s + 20 ms
FRAMES_PITCH = 94  # pitch frames openSMILE summarises in a call on 1.00 s
STEP_FRAMES = 4  # 40 ms

# Functionals over levels made of 20 ms frames only.
SHORT_LEVELS = (
    "egemapsv02_leqLin",
    "egemapsv02_functionalsMVR",
    "gemapsv01b_functionalsLoudness",
    "gemapsv01b_temporalLoudness",
)

_SOURCE = f"""[componentInstances:cComponentManager]
instance[extsource].type=cExternalAudioSource

[extsource:cExternalAudioSource]
writer.dmLevel=wave
writer.levelconf.growDyn=0
writer.levelconf.isRb=1
writer.levelconf.nT={RING_S * RATE_HZ}
blocksize={PIECE}
sampleRate={RATE_HZ}
nBits=16
channels=1
"""
# 5 s of 10 ms frames before the functionals (they read windows of 1 s)
_RING = """writer.levelconf.growDyn = 0
writer.levelconf.isRb = 1
writer.levelconf.nT = 500
"""
_WINDOW = f"""frameMode = fixed
frameSize = 0
frameStep = 0
frameSizeFrames = {FRAMES_PITCH}
frameStepFrames = {STEP_FRAMES}
frameCenterSpecial = left
"""
# A second section of the same name adds to the first one.
_OVERRIDE = "\\{%s}\n" + "".join(
    f"\n[{name}:cFunctionals]\nframeSizeFrames = {FRAMES_SHORT}\n" for name in SHORT_LEVELS
)
_CONFIG = Path(opensmile.__file__).parent / "core" / "config"
_FEATURE_SET = _CONFIG / "egemaps" / "v02" / "eGeMAPSv02.conf"


def to_int16(samples: np.ndarray) -> np.ndarray:
    """float32 in -1..1 -> int16, as opensmile's Python interface does, but clipped, not wrapped."""
    return np.clip(samples * FULL_SCALE, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _options(folder: Path, level: str) -> dict[str, object]:
    """openSMILE options; the files they name are written to `folder`."""
    files = {"source": _SOURCE, "bufferModeConf": _RING, "frameModeFunctionalsConf": _WINDOW}
    options: dict[str, object] = {
        "sink": _CONFIG / "shared" / "standard_external_data_output_single.conf.inc",
        "sinkLevel": level,
        "bufferModeRbConf": _CONFIG / "shared" / "BufferModeRb.conf.inc",
    }
    for name, text in files.items():
        path = folder / f"{name}.conf.inc"
        path.write_text(text, encoding="ascii")
        options[name] = path
    return options


def stream_rows(blocks: Iterable[np.ndarray], level: str) -> Iterator[np.ndarray]:
    """Feed 16 kHz mono blocks to openSMILE eGeMAPSv02 and yield what comes out, in order.

    Parameters
    ----------
    blocks : float32 arrays (n,) of any lengths, full scale 1.
    level : "func" (88 functionals, one row per 40 ms) or "lld" (25 descriptors, one per 10 ms).

    Yields
    ------
    float32 (m, 88) or (m, 25); row i of "func" starts at i * 40 ms, of "lld" at i * 10 ms.

    Raises
    ------
    InputError : the environment or the temporary folder lies under a path openSMILE cannot read.
    RuntimeError : openSMILE stopped before the end of the audio.
    """
    for path in (_CONFIG, Path(tempfile.gettempdir())):
        if not os.fspath(path).isascii():
            raise InputError(
                f"openSMILE cannot read {path}: it takes ASCII paths only",
                "make the environment in a folder without accents, and set TMPDIR to such a folder",
            )
    with tempfile.TemporaryDirectory(prefix="opensmile-") as name:
        folder = Path(name)
        config = folder / "egemaps.conf"
        config.write_text(_OVERRIDE % _FEATURE_SET, encoding="ascii")
        smile = OpenSMILE()
        smile.initialize(os.fspath(config), _options(folder, level), loglevel=1)
        rows: list[np.ndarray] = []
        smile.external_sink_set_callback_ex("extsink", lambda data, meta: rows.append(data.copy()))
        runner = threading.Thread(target=smile.run, daemon=True)
        runner.start()
        try:
            for block in blocks:
                for start in range(0, len(block), PIECE):
                    _write(smile, runner, to_int16(block[start : start + PIECE]).tobytes())
                if rows:
                    # The list is only ever appended to by the other thread.
                    n = len(rows)
                    yield np.concatenate(rows[:n])
                    del rows[:n]
        finally:
            smile.external_audio_source_set_eoi("extsource")
            runner.join()
            smile.free()
    if rows:
        yield np.concatenate(rows)


def _write(smile: OpenSMILE, runner: threading.Thread, data: bytes) -> None:
    """Write samples, waiting while the ring is full."""
    while not smile.external_audio_source_write_data("extsource", data):
        if not runner.is_alive():
            raise RuntimeError("openSMILE stopped before the end of the audio")
        time.sleep(0.0005)


def dim_names(level: str) -> list[str]:
    """Names of the columns of a level ("func" or "lld")."""
    kind = opensmile.FeatureLevel(level)
    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, kind).feature_names
