"""People who come with streams only: how long their recording is, their streams on the clock, labels."""

import json

import h5py
import numpy as np
import pytest
from stream_trees import EGEMAPS, W2VBERT, put, values

from alignment import align, clock, labels, qc
from alignment.aligned import AlignedFeature
from extractors import stream as extractor
from media import probe
from runtime import InputError
from store.features import read_features


def probed(prefix, out, *words):
    """The probe record of somebody without a video, by the command."""
    dataset, session, role = "pinsoro-cc", prefix.parent.name, prefix.name
    names = ["--dataset", dataset, "--session", session, "--role", role]
    assert probe.main(["--streams", str(prefix), *names, "--out", str(out), *words]) == 0
    return json.loads(out.read_text())


def ramp(rows, rate, dim=3):
    """(rows, dim) whose value is the time in seconds: what linear interpolation must give back."""
    return np.repeat((np.arange(rows) / rate)[:, None], dim, axis=1).astype(np.float32)


def test_a_recording_of_streams_lasts_as_long_as_the_longest_at_its_true_rate(tmp_path):
    put(tmp_path / "07", "purple", EGEMAPS, values(1000, 88, 1), rows=500)  # doubled: 20 s
    put(tmp_path / "07", "purple", W2VBERT, values(500, 4), 40.0)  # says 12.5 s, lasts 20 s
    put(tmp_path / "07", "purple", "clip", values(603, 4), 30.0)
    put(tmp_path / "07", "purple2", "clip", values(9000, 4), 30.0)  # another person
    record = probed(tmp_path / "07/purple", tmp_path / "p.json")
    assert record["video"] is None and record["audio"] is None
    assert record["duration_s"] == 20.1
    assert record["streams"][W2VBERT] == {"rows": 500, "rate_hz": 25.0, "duration_s": 20.0}
    assert list(record["streams"]) == [EGEMAPS, W2VBERT, "clip"]
    assert "/" not in json.dumps(record["streams"])  # no path


def test_what_cannot_be_a_recording_is_named(tmp_path, capsys):
    names = ["--dataset", "d", "--session", "s", "--role", "r", "--out", str(tmp_path / "p.json")]
    assert probe.main(names) == 1
    assert "neither video nor streams" in capsys.readouterr().err
    assert probe.main(["--streams", str(tmp_path / "nobody"), *names]) == 1
    assert "begins the name of no stream" in capsys.readouterr().err
    put(tmp_path, "short", "clip", values(50, 4))
    assert probe.main(["--streams", str(tmp_path / "short"), *names]) == 1
    assert "lasts 2.00 s, less than 4 s" in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()


def test_a_sound_file_beside_streams_is_looked_into(tmp_path):
    import soundfile

    put(tmp_path, "r", "clip", values(150, 4))
    sound = 0.1 * np.random.default_rng(0).standard_normal(16000 * 6)
    soundfile.write(tmp_path / "r.wav", sound, 16000, subtype="PCM_16")
    names = ["--dataset", "d", "--session", "s", "--role", "r", "--out", str(tmp_path / "p.json")]
    both = ["--streams", str(tmp_path / "r"), "--audio", str(tmp_path / "r.wav")]
    assert probe.main([*both, *names]) == 0
    record = json.loads((tmp_path / "p.json").read_text())
    assert record["video"] is None and record["audio"]["duration_s"] == 6.0


@pytest.mark.parametrize("rows, shifted", [(562, False), (563, True), (437, True), (438, False)])
def test_a_stream_of_another_length_than_the_sound_is_refused(tmp_path, rows, shifted):
    """500 frames of sound, 62.5 frames are 2.5 s; as in NoXi-J 148 to 150."""
    sound = put(tmp_path, "expert", EGEMAPS, values(500, 88))
    other = put(tmp_path, "expert", "openpose", values(rows, 4))
    path = put(tmp_path, "expert", "clip", values(rows, 4))
    references = {EGEMAPS: str(sound), "openpose": str(other)}
    out = tmp_path / "clip.h5"
    if not shifted:
        assert extractor.extract(str(path), str(out), "clip", references)["rows"] == rows
        return
    with pytest.raises(InputError) as e:
        extractor.extract(str(path), str(out), "clip", references)
    assert f"{rows / 25:.2f} s" in e.value.problem and "20.00 s" in e.value.problem
    assert "max_length_difference" in e.value.cure and not out.exists()
    command = ["--stream", str(path), "--out", str(out), "--feature", "clip"]
    command += ["--references", *(f"{n}={p}" for n, p in references.items())]
    assert extractor.main(command) == 1
    assert extractor.main([*command, "--max-length-difference", "3"]) == 0
    # Told so, the stream is taken as missing for as long as the sound lasts.
    assert extractor.main([*command, "--shifted", "missing"]) == 0
    features = read_features(out)
    assert len(features.time) == 500 and features.time[-1] == 499 / 25
    assert np.isnan(features.values).all() and not features.valid.any()


def test_without_sound_nothing_is_called_shifted(tmp_path):
    other = put(tmp_path, "expert", "openpose", values(500, 4))
    path = put(tmp_path, "expert", "clip", values(900, 4))
    counts = extractor.extract(str(path), str(tmp_path / "c.h5"), "clip", {"openpose": str(other)})
    assert counts["rows"] == 900 and counts["rate_hz"] == 25


def test_a_slow_stream_is_used_at_its_own_rate(tmp_path, capsys):
    """XLM-R at 2 Hz, as NoXi 001 has it, beside sound of 25 Hz: no gap limit cuts it up."""
    sound = put(tmp_path / "001", "expert", EGEMAPS, values(500, 88))
    slow = put(tmp_path / "001", "expert", "audio.xlm_roberta_embeddings", ramp(40, 2.0), 2.0)
    probed(tmp_path / "001/expert", tmp_path / "p.json")
    axis = ["--probe", str(tmp_path / "p.json"), "--rate-hz", "100"]
    assert clock.main([*axis, "--out", str(tmp_path / "clock.json")]) == 0
    native = tmp_path / "xlm.h5"
    counts = extractor.extract(str(slow), str(native), "xlm", {EGEMAPS: str(sound)})
    assert counts["rate_hz"] == 2
    command = ["--feature", str(native), "--clock", str(tmp_path / "clock.json")]
    assert align.main([*command, "--out", str(tmp_path / "aligned.h5")]) == 0
    assert "rows are 0.5 s apart, the gap limit is 0.2 s" in capsys.readouterr().err
    with AlignedFeature(tmp_path / "aligned.h5") as feature:
        x, valid = feature.read(0, 2000)
    assert valid.all()
    inside = np.arange(2000) / 100 <= 39 / 2
    np.testing.assert_allclose(x[inside, 0], np.arange(2000)[inside] / 100, atol=2e-6)


@pytest.fixture(scope="module")
def pinsoro(tmp_path_factory):
    """Results of one child's session: 25 Hz sound, 30 Hz pictures, labels 30 a second."""
    house = tmp_path_factory.mktemp("pinsoro")
    folder, results = house / "train-cc/07", house / "results"
    put(folder, "purple", EGEMAPS, ramp(500, 25.0))
    put(folder, "purple", "clip", ramp(600, 30.0), 30.0)
    words = ["solitary"] * 300 + [""] * 30 + ["onlooker"] * 270
    csv = folder / "purple.social_engagement.annotation.csv"
    csv.write_text("".join(f"{w}\n" for w in words))
    (results / "media/pinsoro-cc/07").mkdir(parents=True)
    record = results / "media/pinsoro-cc/07/purple.json"
    probed(folder / "purple", record)
    home = results / "aligned/pinsoro-cc/07"
    home.mkdir(parents=True)
    axis = ["--probe", str(record), "--rate-hz", "100", "--out", str(home / "clock.json")]
    assert clock.main(axis) == 0
    for name, stream in (("egemaps", EGEMAPS), ("clip", "clip")):
        native = house / f"{name}.h5"
        command = ["--stream", str(folder / f"purple.{stream}.stream"), "--out", str(native)]
        assert extractor.main([*command, "--feature", name]) == 0
        command = ["--feature", str(native), "--clock", str(home / "clock.json")]
        assert align.main([*command, "--out", str(home / "purple" / f"{name}.h5")]) == 0
    command = ["--labels", str(csv), "--probe", str(record), "--rate-hz", "30"]
    command += ["--classes", "solitary", "onlooker"]
    assert labels.main([*command, "--out", str(results / "labels/pinsoro-cc/07/purple.h5")]) == 0
    return results


def test_30_and_25_hz_meet_on_one_clock(pinsoro):
    home = pinsoro / "aligned/pinsoro-cc/07/purple"
    read = {}
    for name in ("egemaps", "clip"):
        with AlignedFeature(home / f"{name}.h5") as feature:
            assert feature.n_ticks == 2000
            read[name] = feature.read(0, 2000)
    for name, last in (("egemaps", 499 / 25), ("clip", 599 / 30)):
        x, valid = read[name]
        inside = np.arange(2000) / 100 <= last
        assert valid[inside].all()
        np.testing.assert_allclose(x[inside, 0], np.arange(2000)[inside] / 100, atol=2e-6)
    # Where a tick lies on a row, the row's own bits come back.
    np.testing.assert_array_equal(read["egemaps"][0][::4], ramp(500, 25.0))
    np.testing.assert_array_equal(read["clip"][0][::10], ramp(600, 30.0)[::3])


def test_labels_keep_their_own_time_stamps(pinsoro):
    with h5py.File(pinsoro / "labels/pinsoro-cc/07/purple.h5") as f:
        np.testing.assert_allclose(f["time"][()], np.arange(600) / 30)
        assert (~f["valid"][()]).sum() == 30
        assert f["values"][0, 0] == 0 and f["values"][599, 0] == 1


def test_quality_of_somebody_without_video_and_audio(pinsoro, tmp_path):
    command = ["session", "--session", "pinsoro-cc/07:purple", "--results", str(pinsoro)]
    command += ["--features", "egemaps", "clip", "--labels-roles", "purple"]
    command += ["--out", str(tmp_path / "q.json"), "--plot", str(tmp_path / "q.png")]
    assert qc.main(command) == 0
    (person,) = json.loads((tmp_path / "q.json").read_text())["participants"]
    assert person["ends_s"] == {"labels": 20.0, "streams": 20.0}
    assert "faces" not in person and "audio" not in person
    table = tmp_path / "qc.tsv"
    assert qc.main(["summary", "--inputs", str(tmp_path / "q.json"), "--out", str(table)]) == 0
    row = dict(zip(*(line.split("\t") for line in table.read_text().splitlines()), strict=True))
    assert (row["face_rate"], row["clipped"], row["silent"]) == ("", "", "")
    assert row["coverage_egemaps"] == "1.0" and row["length_spread_s"] == "0.0"
