"""A small corpus of aligned features and labels, written with the real writers.

Everybody has an own latent, seen in the audio streams, and a hidden one, seen in the partners'
visual streams; the label is a stated mixture of both.
"""

import json
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from alignment.align import align
from store.features import FeatureAttributes, write_features

DIMS = {"egemaps": 6, "wav2vec2": 8, "clip_face": 5, "flow": 4, "flow_magnitude": 3}
RATES = {"egemaps": 25, "wav2vec2": 50, "clip_face": 25, "flow": 25, "flow_magnitude": 25}
SHARE_HIDDEN = 0.4


def smooth(rng: np.random.Generator, n: int, count: int, sigma: float) -> np.ndarray:
    """(count, n) smooth noise, zero mean, unit variance."""
    x = gaussian_filter1d(rng.standard_normal((count, n)), sigma, axis=1, mode="wrap")
    return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)


def write_feature(path, name, values, time, valid, rate):
    attributes = FeatureAttributes(
        name, rate, 1 / rate, 1 / rate, [f"{name}{i}" for i in range(values.shape[1])], "test"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(path, values, time, valid, attributes)


def write_session(results, dataset, session, roles, seconds, seed, dims=None, labels=True):
    """Features, clock, aligned files and labels of one session; returns its spec."""
    dims = DIMS if dims is None else dims
    results = Path(results)
    rng = np.random.default_rng([seed, sum(map(ord, session))])
    shared = np.random.default_rng(99)  # how latents show in features: the same everywhere
    grid = np.arange(int(seconds * 100)) / 100
    own = smooth(rng, len(grid), len(roles), 75)
    hidden = smooth(rng, len(grid), len(roles), 75)
    folder = results / "aligned" / dataset / session
    folder.mkdir(parents=True, exist_ok=True)
    clock = folder / "clock.json"
    participants = {role: {"offset_s": 0.0, "end_s": seconds} for role in roles}
    clock.write_text(
        json.dumps(
            {
                "rate_hz": 100,
                "n_ticks": len(grid),
                "duration_s": seconds,
                "dataset": dataset,
                "session": session,
                "participants": participants,
            }
        )
    )
    for i, role in enumerate(roles):
        others = [k for k in range(len(roles)) if k != i]
        shown = hidden[others].mean(0) * np.sqrt(max(1, len(others))) if others else 0 * own[i]
        for name, dim in dims.items():
            rate = RATES[name]
            time = np.arange(int(seconds * rate)) / rate
            source = own[i] if name.startswith(("egemaps", "wav2vec2")) else shown
            mix = shared.standard_normal(dim)
            signal = np.interp(time, grid, source)[:, None] * mix
            values = 3 + 2 * (signal + 0.7 * rng.standard_normal((len(time), dim)))
            valid = np.ones(len(time), bool)
            if name == "clip_face":
                valid[40:60] = False
            native = results / "features" / dataset / session / role / f"{name}.h5"
            write_feature(native, name, values.astype(np.float32), time, valid, rate)
            align(native, clock, folder / role / f"{name}.h5")
        if labels:
            time = np.arange(int(seconds * 25)) / 25
            clean = np.sqrt(1 - SHARE_HIDDEN) * own[i] + np.sqrt(SHARE_HIDDEN) * hidden[i]
            value = 0.5 + 0.15 * np.interp(time, grid, clean)
            known = np.ones(len(time), bool)
            known[100:110] = False
            path = results / "labels" / dataset / session / f"{role}.h5"
            write_feature(path, "engagement", value[:, None].astype(np.float32), time, known, 25)
    return f"{dataset}/{session}:{','.join(roles)}"


DYAD = ("expert", "novice")


def write_corpus(results, dyads=3, seconds=12.0, seed=0, dims=None, dataset="noxi"):
    """Some dyads; returns their specs."""
    return [
        write_session(results, dataset, f"{i:03d}", DYAD, seconds, seed, dims)
        for i in range(1, dyads + 1)
    ]
