"""Small results folders for the tests of alignment, store and quality: real writers, made rows."""

import json
from pathlib import Path

import numpy as np

from alignment import labels
from alignment.align import align
from alignment.clock import make_clock
from store.features import FeatureAttributes, write_features


def feature_file(path, values, time, valid=None, rate=25.0, name="x", dtype="float32"):
    """Write a feature file of values (T, D) at time (T,) s; returns its path."""
    values = np.asarray(values)
    valid = np.ones(len(time), bool) if valid is None else valid
    names = [f"{name}_{i}" for i in range(values.shape[1])]
    attributes = FeatureAttributes(
        name, rate, 1 / rate, 1 / rate, names, f"extractors.{name}", fingerprint=f"code=0 of={name}"
    )
    write_features(path, values, time, valid, attributes, dtype)
    return Path(path)


def clock_file(path, duration_s, rate_hz=100.0):
    """Write clock.json for one recording; returns its path."""
    person = {"dataset": "d", "session": "s", "role": "r", "duration_s": duration_s}
    Path(path).write_text(json.dumps(make_clock([person], rate_hz)))
    return Path(path)


def probe_record(role="expert", duration_s=6.0, offset=0.0, session="001", video_s=None):
    """What media.probe says of a recording."""
    return {
        "dataset": "noxi",
        "session": session,
        "role": role,
        "offset": offset,
        "duration_s": duration_s,
        "video": {"first_s": 0.0, "duration_s": video_s or duration_s, "frames": 1, "rate_hz": 25},
        "audio": {"start_s": 0.0, "duration_s": duration_s},
    }


def results_folder(root):
    """A session noxi/001 with expert (6 s, labels) and novice (5 s, starts 1.5 s later, no labels).

    clip_face at 25 Hz (the expert's face is lost from 2 s to 3 s), wav2vec2 at 50 Hz; faces too.
    """
    root = Path(root)
    rng = np.random.default_rng(5)
    people = [probe_record("expert", 6.0), probe_record("novice", 5.0, 1.5, video_s=4.6)]
    home = root / "aligned/noxi/001"
    home.mkdir(parents=True)
    (home / "clock.json").write_text(json.dumps(make_clock(people, 100)))
    for p in people:
        role, seconds = p["role"], p["duration_s"]
        media = root / f"media/noxi/001/{role}.json"
        media.parent.mkdir(parents=True, exist_ok=True)
        media.write_text(json.dumps(p))
        for name, rate, dim in (("clip_face", 25.0, 4), ("wav2vec2", 50.0, 3)):
            time = np.arange(int(seconds * rate)) / rate
            valid = np.ones(len(time), bool)
            if name == "clip_face" and role == "expert":
                valid = ~((time > 1.99) & (time < 2.99))
            values = rng.standard_normal((len(time), dim))
            source = root / f"features/noxi/001/{role}/{name}.h5"
            feature_file(source, values, time, valid, rate, name, "float16")
            align(
                source,
                home / "clock.json",
                home / role / f"{name}.h5",
                p["offset"],
                fingerprint="f",
            )
            if name == "clip_face":
                feature_file(root / f"faces/noxi/001/{role}.h5", values, time, valid, rate, "faces")
    csv = root / "expert.csv"
    csv.write_text("".join("nan\n" if 50 <= i < 60 else f"{i / 150:.4f}\n" for i in range(150)))
    labels.convert(csv, root / "labels/noxi/001/expert.h5", people[0])
    return root
