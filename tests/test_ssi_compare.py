"""Comparing with shipped streams: known lags, gains and noise are found."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from extractors.compare import compare, main
from formats.ssi.stream import write_stream
from runtime import InputError
from store.features import FeatureAttributes, write_features

RATE = 25.0


def signal(n=2000, dims=3, seed=0):
    return gaussian_filter1d(np.random.default_rng(seed).normal(size=(n, dims)), 3, axis=0)


def feature(path, x, start=0.0, valid=None):
    attributes = FeatureAttributes(
        "egemaps", RATE, 0.04, 0.04, [f"d{i}" for i in range(x.shape[1])], "t"
    )
    valid = np.ones(len(x), bool) if valid is None else valid
    write_features(path, x.astype(np.float32), start + np.arange(len(x)) / RATE, valid, attributes)
    return path


@pytest.mark.parametrize("lag", [-10, 0, 3])
def test_a_known_lag_and_gain(tmp_path, lag):
    x = signal()
    write_stream(tmp_path / "a.stream", x.astype(np.float32), RATE)
    ours = feature(tmp_path / "f.h5", 2 * np.roll(x, lag, axis=0))
    rows = compare(ours, tmp_path / "a.stream")
    assert [round(r.lag_s * RATE) for r in rows] == [lag] * 3
    assert all(r.r_at_lag > 0.98 and r.sd_ratio == pytest.approx(2, rel=0.02) for r in rows)
    if lag == 0:
        expected = [np.corrcoef(2 * x[:, d], x[:, d])[0, 1] for d in range(3)]
        np.testing.assert_allclose([r.r for r in rows], expected, atol=1e-6)


def test_correlation_is_numpys(tmp_path):
    x = signal()
    noisy = x + 0.1 * np.random.default_rng(1).normal(size=x.shape)
    write_stream(tmp_path / "a.stream", noisy.astype(np.float32), RATE)
    valid = np.arange(len(x)) % 7 != 0
    rows = compare(feature(tmp_path / "f.h5", x, valid=valid), tmp_path / "a.stream")
    expected = [np.corrcoef(x[valid, d], noisy[valid, d])[0, 1] for d in range(3)]
    np.testing.assert_allclose([r.r for r in rows], expected, atol=1e-5)


def test_a_constant_agrees_with_nothing_and_has_no_lag(tmp_path):
    x = signal()
    x[:, 1] = 3
    write_stream(tmp_path / "a.stream", x.astype(np.float32), RATE)
    rows = compare(feature(tmp_path / "f.h5", x), tmp_path / "a.stream")
    assert [np.isnan(r.r) and np.isnan(r.lag_s) for r in rows] == [False, True, False]
    assert rows[0].lag_s == rows[2].lag_s == 0 and rows[0].r > 0.9999


def test_different_things_are_not_compared(tmp_path, capsys):
    write_stream(tmp_path / "a.stream", signal(dims=4).astype(np.float32), RATE)
    ours = feature(tmp_path / "f.h5", signal())
    with pytest.raises(InputError, match="4 columns"):
        compare(ours, tmp_path / "a.stream")
    late = feature(tmp_path / "g.h5", signal(dims=4), start=1e4)
    with pytest.raises(InputError, match="fewer than 50"):
        compare(late, tmp_path / "a.stream")
    same = feature(tmp_path / "h.h5", signal(dims=4))
    assert main([str(same), str(tmp_path / "a.stream")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("dimension") and lines[-1] == "median\t1.0000\t0.000\t1.0000\t1.0000"


def test_our_egemaps_beside_a_stream_that_opensmile_made(tmp_path):
    """As the challenge's: one openSMILE call per 40 ms frame and the 960 ms before it."""
    import opensmile
    import soundfile

    from extractors import run

    rng = np.random.default_rng(0)
    seconds = np.arange(5 * 16000) / 16000
    loud = 0.5 + 0.4 * np.sin(2 * np.pi * 0.7 * seconds)
    voice = np.sign(np.sin(2 * np.pi * (120 + 30 * np.sin(2 * np.pi * 0.4 * seconds)) * seconds))
    sound = (0.3 * loud * voice + 0.02 * rng.normal(size=len(seconds))).astype(np.float32)
    soundfile.write(tmp_path / "expert.audio.wav", sound, 16000, subtype="FLOAT")
    smile = opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals, sampling_rate=16000
    )
    frames = [sound[max(0, 640 * k - 15360) : 640 * (k + 1)] for k in range(24, 125)]
    shipped = np.concatenate([smile.process_signal(f, 16000).to_numpy() for f in frames])
    ours = tmp_path / "egemaps.h5"
    command = ["--audio", str(tmp_path / "expert.audio.wav"), "--mode", "exact"]
    assert run.main(["egemaps", *command, "--out", str(ours)]) == 0
    for late, lag in ((0.0, 0.0), (0.2, -0.2)):  # the second: a stream whose times are 200 ms late
        path = tmp_path / "expert.audio.egemapsv2.stream"
        write_stream(path, shipped, RATE, chunks=[(0.96 + late, len(shipped))])
        rows = [r for r, x in zip(compare(ours, path), shipped.T, strict=True) if np.ptp(x) > 0]
        assert len(rows) > 80 and {round(r.lag_s, 3) for r in rows} == {lag}
        assert min(r.r_at_lag for r in rows) > 0.99999
        if not late:
            assert all(r.sd_ratio == pytest.approx(1, abs=1e-3) for r in rows)
