"""egemaps and egemaps_lld: rows, times, windows and values against openSMILE's own calls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import opensmile
import psutil
import pytest
import soundfile

from extractors import egemaps
from extractors.opensmile_stream import RATE_HZ, dim_names, stream_rows
from extractors.run import extract
from extractors.sound import Sound, clear_of_gaps
from runtime import InputError
from store.features import read_features

MODES = ("streaming", "exact")


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Buzz with a wandering pitch, on and off, plus breath: float32 at 16 kHz on the int16 grid."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pitch = 140 + 40 * np.sin(2 * np.pi * 0.4 * t + seed) + 8 * np.sin(2 * np.pi * 5 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    buzz = sum(np.sin(h * phase) / h for h in range(1, 12))
    gate = (np.sin(2 * np.pi * 0.9 * t) > -0.3) * (0.6 + 0.4 * np.sin(2 * np.pi * 3.1 * t))
    signal = 0.15 * buzz * gate + 0.003 * rng.standard_normal(len(t))
    return (np.round(signal * 32767).clip(-32768, 32767) / 32768).astype(np.float32)


def cut(signal: np.ndarray, seed: int):
    """Blocks of random lengths."""
    rng = np.random.default_rng(seed)
    at = 0
    while at < len(signal):
        n = int(rng.choice([1, 160, 641, 5000, 40000]))
        yield signal[at : at + n]
        at += n


def whole(signal: np.ndarray, frames: int, folder) -> np.ndarray:
    """One whole-file pass of the public interface with one frame length for all functionals."""
    path = folder / f"window{frames}.conf.inc"
    path.write_text(
        "frameMode = fixed\nframeSize = 0\nframeStep = 0\n"
        f"frameSizeFrames = {frames}\nframeStepFrames = 4\nframeCenterSpecial = left\n"
    )
    smile = opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02,
        opensmile.FeatureLevel.Functionals,
        options={"frameModeFunctionalsConf": str(path)},
    )
    return smile.process_signal(signal, RATE_HZ).to_numpy(np.float32)


def is_short(name: str) -> bool:
    """Functionals of 20 ms frames only, told from their names (not from the extractor's list)."""
    base = name.split("_")[0]
    return name.startswith("loudness") or base in {
        "spectralFlux",
        "mfcc1",
        "mfcc2",
        "mfcc3",
        "mfcc4",
        "equivalentSoundLevel",
    }


SHORT = np.array([is_short(name) for name in dim_names("func")])


def rows(signal: np.ndarray, **settings) -> np.ndarray:
    return np.concatenate(list(egemaps.functionals([signal], **settings)))


def test_stream_equals_whole_file_passes_bit_for_bit(tmp_path):
    signal = voice(8.0)
    got = np.concatenate(list(egemaps.functionals(cut(signal, 1))))
    assert got.shape == (200, 88)
    assert np.isnan(got[:24]).all() and np.isfinite(got[24:]).all()
    short, pitch = whole(signal, 99, tmp_path), whole(signal, 94, tmp_path)
    n = min(len(short), len(pitch), 176)
    assert n >= 175
    assert SHORT.sum() == 22
    np.testing.assert_array_equal(got[24 : 24 + n, SHORT], short[:n, SHORT])
    np.testing.assert_array_equal(got[24 : 24 + n, ~SHORT], pitch[:n, ~SHORT])


def test_values_do_not_depend_on_blocks():
    signal = voice(5.0, seed=3)
    one = rows(signal)
    for seed in range(3):
        np.testing.assert_array_equal(
            one, np.concatenate(list(egemaps.functionals(cut(signal, seed))))
        )


@pytest.mark.parametrize("n", [1, 639, 640, 9000, 15999, 16000, 16001, 16639, 16640, 33333])
@pytest.mark.parametrize("mode", MODES)
def test_one_row_per_complete_frame(n, mode):
    got = rows(voice(3.0)[:n], mode=mode)
    assert len(got) == n // 640
    assert np.isnan(got[:24]).all()
    assert np.isfinite(got[24:]).all()


def test_row_k_sees_960_ms_before_and_40_ms_after_its_time():
    """Change the audio before or after an instant and see which rows move."""
    signal, other = voice(6.0), voice(6.0, seed=9) * 0.5
    base = rows(signal)
    start = np.arange(150) * 0.04 - 0.96
    for at in (2.6, 3.013, 4.0):
        after, before = signal.copy(), signal.copy()
        i = round(at * RATE_HZ)
        after[i:], before[:i] = other[i:], other[:i]
        moved = (rows(after) != base)[:, SHORT].any(axis=1)
        moved[:24] = False
        # Smoothing over three 10 ms rows widens the window by 10 ms on both sides.
        assert np.all(moved[(start + 1.0 > at + 1e-6) & (start >= 0)])
        assert not moved[start + 1.01 <= at - 1e-6].any()
        moved = (rows(before) != base)[:, SHORT].any(axis=1)
        moved[:24] = False
        assert np.all(moved[(start < at - 1e-6) & (start >= 0)])
        assert not moved[start - 0.01 >= at + 1e-6].any()


def test_click_appears_at_its_time_in_the_file(tmp_path):
    signal = 0.001 * np.random.default_rng(0).standard_normal(RATE_HZ * 4).astype(np.float32)
    at = 2.21
    signal[round(at * RATE_HZ) : round(at * RATE_HZ) + 80] += 0.5
    soundfile.write(tmp_path / "click.wav", signal, RATE_HZ)
    extract("egemaps", tmp_path / "e.h5", Sound(tmp_path / "click.wav"))
    f = read_features(tmp_path / "e.h5")
    level = f.values[:, f.dim_names.index("equivalentSoundLevel_dBp")]
    loud = f.valid & (level > np.nanmedian(level) + 10)
    assert f.time[np.argmax(loud)] <= at < f.time[np.argmax(loud)] + 0.04
    assert loud.sum() in (25, 26)

    extract("egemaps_lld", tmp_path / "l.h5", Sound(tmp_path / "click.wav"))
    f = read_features(tmp_path / "l.h5")
    loudness = f.values[:, f.dim_names.index("Loudness_sma3")]
    assert abs(f.time[np.argmax(loudness)] - at) <= 0.01
    assert (f.valid == np.isfinite(loudness)).all()


def test_exact_mode_is_one_call_per_window():
    signal = voice(1.4, seed=5)
    got = np.concatenate(list(egemaps.functionals(cut(signal, 2), mode="exact")))
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    for k in range(24, 35):
        window = signal[640 * (k + 1) - 16000 : 640 * (k + 1)]
        expected = smile.process_signal(window, RATE_HZ).to_numpy(np.float32)[0]
        np.testing.assert_array_equal(got[k], expected)


def test_streaming_stays_close_to_exact():
    """What needs no pitch differs by the smoothing at the window's edge only."""
    signal = voice(4.0, seed=7)
    a, b = rows(signal)[24:], rows(signal, mode="exact")[24:]
    spread = b.std(axis=0) + 1e-6
    error = np.median(np.abs(a - b), axis=0) / spread
    names = dim_names("func")
    for name in ("loudness_sma3_amean", "equivalentSoundLevel_dBp", "mfcc1_sma3_amean"):
        assert error[names.index(name)] < 0.02, name
    # One row off (40 ms) is clearly worse: the rows are where they belong.
    i = names.index("loudness_sma3_amean")
    shifted = np.median(np.abs(a[1:, i] - b[:-1, i])) / spread[i]
    assert shifted > 5 * error[i]


def test_full_scale_is_clipped_not_wrapped():
    loud = np.ones(RATE_HZ * 2, np.float32)
    loud[::2] = -1.0
    nearly = loud * np.float32(32767 / 32768)
    # -1.0 is representable, +1.0 is not: both must give nearly the same level, not a flipped sign.
    i = dim_names("func").index("equivalentSoundLevel_dBp")
    for mode in MODES:
        a, b = rows(loud, mode=mode)[24:, i], rows(nearly, mode=mode)[24:, i]
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_descriptors_equal_the_whole_file_call():
    signal = voice(6.0, seed=2)
    got = np.concatenate(list(stream_rows(cut(signal, 4), "lld")))
    smile = opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors
    )
    np.testing.assert_array_equal(got, smile.process_signal(signal, RATE_HZ).to_numpy(np.float32))
    assert dim_names("lld") == smile.feature_names


def test_silent_passages_are_finite_values():
    signal = voice(5.0)
    signal[RATE_HZ : 3 * RATE_HZ] = 0.0
    assert np.isfinite(rows(signal)[24:]).all()
    assert np.isfinite(np.concatenate(list(stream_rows([signal], "lld")))).all()


@pytest.mark.parametrize("module", ["egemaps", "egemaps_lld"])
def test_command_line(tmp_path, module):
    soundfile.write(tmp_path / "a.wav", voice(2.0), RATE_HZ)
    soundfile.write(tmp_path / "silent.wav", np.full(RATE_HZ, 5e-5, np.float32), RATE_HZ)

    def run(audio, out):
        return subprocess.run(
            [sys.executable, "-m", "extractors", module, "--audio", tmp_path / audio]
            + ["--out", tmp_path / out, "--log", tmp_path / "log"],
            capture_output=True,
            text=True,
        )

    for out in ("one.h5", "two.h5"):
        assert run("a.wav", out).returncode == 0
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    f = read_features(tmp_path / "one.h5")
    assert f.values.shape == ((50, 88) if module == "egemaps" else (196, 25))
    assert json.loads((tmp_path / "one.json").read_text())["counts"]["valid"] == f.valid.sum()
    mode = {"mode": "streaming"} if module == "egemaps" else {}
    assert json.loads(f.attributes["settings"]) == mode | {"dtype": "float32"}

    silent = run("silent.wav", "silent.h5")
    said = (tmp_path / "log").read_text()
    assert silent.returncode == 0 and "silent.wav is silent" in said and "audio_channel" in said
    assert json.loads((tmp_path / "silent.json").read_text())["counts"]["valid"] == 0


def test_rows_that_touch_a_gap_are_marked():
    start = np.arange(5) * 1.0
    clear = clear_of_gaps(start, start + 1.0, [(1.0, 1.5), (3.25, 3.5)])
    assert clear.tolist() == [True, False, True, False, True]


def test_memory_does_not_grow_with_length():
    process = psutil.Process()
    second = voice(1.0)
    grown = []

    def five_minutes():
        for i in range(300):
            if i in (60, 299):
                grown.append(process.memory_info().rss)
            yield second

    assert sum(map(len, egemaps.functionals(five_minutes()))) == 7500
    # A whole-file call would take about 160 MB more for these four minutes.
    assert grown[1] - grown[0] < 15e6


def test_an_error_in_the_audio_ends_the_run():
    def broken():
        yield voice(2.0)
        raise InputError("the file is damaged", "copy it again")

    with pytest.raises(InputError, match="damaged"):
        list(egemaps.functionals(broken()))


REALCLIPS = Path(
    os.environ.get("REALCLIPS", Path(__file__).resolve().parents[2] / "shared/corpora/realclips")
)


@pytest.mark.realclips
@pytest.mark.skipif(not REALCLIPS.is_dir(), reason=f"no corpus of real clips at {REALCLIPS}")
def test_real_speech_agrees_with_exact():
    path = sorted(REALCLIPS.rglob("*.wav"))[0]
    signal, rate = soundfile.read(path, dtype="float32", frames=7 * RATE_HZ)
    assert rate == RATE_HZ
    a, b = rows(signal)[24:], rows(signal, mode="exact")[24:]
    with np.errstate(invalid="ignore"):  # constant columns: nan
        correlation = [np.corrcoef(a[:, j], b[:, j])[0, 1] for j in range(88)]
    names = dim_names("func")
    for j, name in enumerate(names):
        if SHORT[j] and name.endswith(("amean", "percentile50.0", "dBp")):
            assert correlation[j] > 0.995, name
    assert np.nanmedian(correlation) > 0.97
