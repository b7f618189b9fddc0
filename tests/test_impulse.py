"""Time, through every extractor and the alignment: what happens at t in the media appears at t.

Each recording is extracted twice, with and without an event at EVENT_S; after alignment to 100 Hz
(the participant's recording starts OFFSET_S late) the difference must peak, or for the functionals
with their left context begin, at EVENT_S + OFFSET_S of session time.
"""

import json

import numpy as np
import pytest
from face_files import rgb, shifted, texture, write_crops, write_faces
from media_files import write_wav

from alignment import align
from alignment.aligned import AlignedFeature
from corpora.demo.weights import write_weights
from extractors import run

RATE, SECONDS, OFFSET_S = 16000, 6.0, 0.5
EVENT_S = 3.22  # inside the 40 ms frame 80
FRAMES, HIT = round(25 * SECONDS), 80


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Recordings with and without the event, and small checkpoints."""
    house = tmp_path_factory.mktemp("impulse")
    noise = np.random.default_rng(0).normal(0, 0.05, round(RATE * SECONDS))
    click = 0.6 * np.random.default_rng(1).choice([-1.0, 1.0], 80)  # 5 ms
    # Both recordings hold the click, so that whole-file statistics agree; the plain one near its end.
    for name, at_s in (("event", EVENT_S), ("plain", 5.6)):
        sound = noise.copy()
        sound[round(RATE * at_s) :][:80] += click
        write_wav(house / f"{name}.wav", sound.astype(np.float32))
    still = texture(224, blur=8.0)
    moved = shifted(still, 5.0, 3.0)
    pictures = {
        "plain": [rgb(still)] * FRAMES,
        # One picture differs (a flash), for what a frame shows
        "flash": [rgb(texture(224, seed=5) if k == HIT else still) for k in range(FRAMES)],
        # Moved once and for all between HIT - 1 and HIT, for what happens between frames
        "event": [rgb(moved if k >= HIT else still) for k in range(FRAMES)],
    }
    for name, images in pictures.items():
        write_crops(house / f"{name}.mkv", images)
    write_faces(house / "faces.h5", np.arange(FRAMES) / 25)
    for feature in ("wav2vec2", "clip_face"):
        write_weights(feature, house / feature)
    clock = {"rate_hz": 100, "n_ticks": 650, "duration_s": 6.5}
    (house / "clock.json").write_text(json.dumps(clock) + "\n")
    return house


def aligned(house, folder, feature, words) -> tuple[np.ndarray, np.ndarray]:
    """Run the extractor's and the aligner's command lines; values (n, D), valid (n,) at 100 Hz."""
    out, ticks = folder / "f.h5", folder / "a.h5"
    assert run.main([feature, *words, "--out", str(out)]) == 0
    words = [
        "--feature",
        out,
        "--clock",
        house / "clock.json",
        "--offset",
        OFFSET_S,
        "--out",
        ticks,
    ]
    assert align.main([str(w) for w in words]) == 0
    with AlignedFeature(ticks) as feature:
        return feature.read(0, feature.n_ticks)


def difference(house, tmp_path, feature, plain, event) -> np.ndarray:
    """Norm of the standardised difference per tick, 0 where either is not valid or after 5 s."""
    (tmp_path / "p").mkdir()
    (tmp_path / "e").mkdir()
    a, valid_a = aligned(house, tmp_path / "p", feature, plain)
    b, valid_b = aligned(house, tmp_path / "e", feature, event)
    valid = valid_a & valid_b & (np.arange(len(a)) < 500)
    scale = np.nanstd(b[valid], axis=0) + 1e-6
    d = np.zeros(len(a))
    d[valid] = np.linalg.norm((b[valid] - a[valid]) / scale, axis=1)
    return d


def audio(house, name, *more):
    return ["--audio", str(house / f"{name}.wav"), *map(str, more)]


def visual(house, name, *more):
    return [
        "--faces",
        str(house / "faces.h5"),
        "--crops",
        str(house / f"{name}.mkv"),
        *map(str, more),
    ]


@pytest.mark.parametrize(
    ("feature", "words", "instant_s", "tolerance_s"),
    [
        ("egemaps_lld", lambda h, n: audio(h, n), EVENT_S, 0.02),
        ("wav2vec2", lambda h, n: audio(h, n, "--weights", h / "wav2vec2"), EVENT_S, 0.02),
        ("clip_face", lambda h, n: visual(h, "flash" if n == "event" else n, "--weights", h / "clip_face"), HIT / 25, 0.0),
        ("flow", lambda h, n: visual(h, n), HIT / 25, 0.0),
        ("flow_magnitude", lambda h, n: visual(h, n), HIT / 25, 0.0),
    ],
    ids=["egemaps_lld", "wav2vec2", "clip_face", "flow", "flow_magnitude"],
)  # fmt: skip
def test_an_event_peaks_at_its_instant(house, tmp_path, feature, words, instant_s, tolerance_s):
    d = difference(house, tmp_path, feature, words(house, "plain"), words(house, "event"))
    peak_s = np.argmax(d) / 100
    assert d.max() > 0
    assert abs(peak_s - (instant_s + OFFSET_S)) <= tolerance_s + 1e-9


def test_functionals_begin_at_the_event_and_keep_it_for_their_window(house, tmp_path):
    d = difference(house, tmp_path, "egemaps", audio(house, "plain"), audio(house, "event"))
    changed = np.flatnonzero(d > 1.0) / 100
    # Row 80 is the first whose window [k 0.04 - 0.96, k 0.04 + 0.04) holds it, row 104 the last;
    # the aligner interpolates towards row 79 and row 105.
    assert 79 * 0.04 < changed[0] - OFFSET_S <= 80 * 0.04 + 1e-9
    assert 104 * 0.04 - 1e-9 <= changed[-1] - OFFSET_S < 105 * 0.04
