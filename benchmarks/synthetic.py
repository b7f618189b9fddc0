"""A synthetic corpus of real shape for benchmarks, through the real writers.

Aligned features (random rows of the real widths, rates and stored types, a face lost now and then),
labels and statistics, as the workflow would leave them under a results folder.
"""

import json
from pathlib import Path

import numpy as np

from alignment.align import align
from alignment.clock import make_clock
from store.features import FeatureAttributes, FeatureWriter
from training.statistics import main as statistics

# name: (dimension, native rate in Hz, stored type, from the face)
SHAPES = {
    "egemaps": (88, 25.0, "float32", False),
    "wav2vec2": (1024, 50.0, "float16", False),
    "clip_face": (512, 25.0, "float16", True),
    "flow": (714, 25.0, "float16", True),
    "flow_magnitude": (139, 25.0, "float16", True),
}
BLOCK = 1024


def write_corpus(
    results: Path, sessions: int, seconds: float, roles: tuple[str, ...] = ("expert", "novice")
) -> list[str]:
    """Write sessions of `seconds`; returns their specs (dataset/session:roles)."""
    rng = np.random.default_rng(0)
    specs = []
    for number in range(sessions):
        session = f"{number:03d}"
        folder = results / "aligned" / "synthetic" / session
        folder.mkdir(parents=True, exist_ok=True)
        clock = folder / "clock.json"
        person = {"dataset": "synthetic", "session": session, "duration_s": seconds}
        clock.write_text(json.dumps(make_clock([person | {"role": r} for r in roles], 100.0)))
        for role in roles:
            for name, (dim, rate, dtype, face) in SHAPES.items():
                native = results / "native.h5"
                _write(native, name, rng, (int(seconds * rate), dim), rate, dtype, face)
                align(native, clock, folder / role / f"{name}.h5")
                native.unlink()
                native.with_suffix(".json").unlink(missing_ok=True)
            label = results / "labels" / "synthetic" / session / f"{role}.h5"
            label.parent.mkdir(parents=True, exist_ok=True)
            _write(label, "engagement", rng, (int(seconds * 25), 1), 25.0, "float32", False)
        specs.append(f"synthetic/{session}:{','.join(roles)}")
    return specs


def _write(path, name, rng, shape, rate, dtype, face) -> None:
    rows, dim = shape
    attributes = FeatureAttributes(
        name, rate, 1 / rate, 1 / rate, [f"d{i}" for i in range(dim)], "benchmark"
    )
    with FeatureWriter(path, attributes, dtype) as writer:
        for start in range(0, rows, BLOCK):
            at = np.arange(start, min(start + BLOCK, rows))
            values = rng.standard_normal((len(at), dim), np.float32)
            valid = (at // 200 % 33 != 7) if face else np.ones(len(at), bool)
            writer.append(values, at / rate, valid)


def write_statistics(results: Path, specs: list[str]) -> Path:
    """Normalisation statistics of these sessions; returns the file."""
    out = results / "statistics.h5"
    argv = ["--sessions", *specs, "--features", *SHAPES, "--results", str(results)]
    if statistics([*argv, "--out", str(out), "--log", str(results / "statistics.log")]):
        raise RuntimeError(f"statistics failed, see {results / 'statistics.log'}")
    return out
