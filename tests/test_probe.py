"""The participant's record of a recording."""

import json

import numpy as np
import pytest
from media_files import tone, write_video, write_wav

from media import probe as probe_module
from media.probe import check_lengths, main, participant_record, probe, stated_length
from runtime import InputError


@pytest.fixture
def person(tmp_path):
    folder = tmp_path / "001"
    folder.mkdir()
    write_video(folder / "expert.mp4", frames=125)
    write_wav(folder / "expert.wav", tone(5.0))
    (folder / "expert.csv").write_text("0.5\nnan\n" * 62 + "0.5\n")
    return folder


def arguments(folder, out, **over):
    options = {"--video": folder / "expert.mp4", "--audio": folder / "expert.wav", "--dataset": "d",
               "--session": "001", "--role": "expert", "--out": out}  # fmt: skip
    options |= over
    return [str(word) for pair in options.items() for word in pair if pair[1] is not None]


def test_record_is_complete_and_repeatable(person, tmp_path):
    out = [tmp_path / "1.json", tmp_path / "2.json"]
    for path in out:
        more = {"--labels": person / "expert.csv", "--offset": 0.5, "--roi": "0,0,32,48"}
        assert main(arguments(person, path, **more)) == 0
    assert out[0].read_bytes() == out[1].read_bytes()
    assert str(tmp_path) not in out[0].read_text()
    record = json.loads(out[0].read_text())
    assert (record["dataset"], record["session"], record["role"]) == ("d", "001", "expert")
    assert record["offset"] == 0.5 and record["roi"] == "0,0,32,48"
    assert record["duration_s"] == pytest.approx(5.0)
    assert record["video"]["frames"] == 125 and record["video"]["rate_hz"] == 25.0
    assert record["audio"]["duration_s"] == 5.0 and record["audio"]["peak"] == pytest.approx(
        0.5, abs=1e-3
    )
    assert (record["labels"]["values"], record["labels"]["missing"]) == (125, 62)


def test_sound_of_the_video_is_the_default(tmp_path):
    path = write_video(tmp_path / "av.mp4", frames=125, audio=tone(5.0))
    record = participant_record(path, None, "d", "s", "r")
    assert record["audio"]["name"] == record["video"]["name"]
    assert record["audio"]["duration_s"] == pytest.approx(5.0, abs=0.1)


def test_bad_participants(person, tmp_path, capsys):
    short_video = write_video(tmp_path / "short.mp4", frames=50)
    long_wav = write_wav(tmp_path / "long.wav", tone(9.0))
    silent = write_wav(tmp_path / "silent.wav", np.zeros(80000))
    labels = tmp_path / "long.csv"
    labels.write_text("0.5\n" * 270)
    bad_label = tmp_path / "bad.csv"
    bad_label.write_text("0.5\n1.5\n")
    out = tmp_path / "out.json"
    for over, words in [
        ({"--audio": long_wav}, ["expert.mp4", "5.00 s", "long.wav", "9.00 s", "2 s apart"]),
        ({"--labels": labels}, ["expert.mp4", "5.00 s", "long.csv", "10.80 s"]),
        ({"--labels": bad_label}, ["bad.csv line 2", "1.5"]),
        ({"--audio": silent, "--unusable": "refuse"}, ["silent.wav is silent", "media.unusable"]),
        ({"--audio": None}, ["expert.mp4 has no audio stream"]),
        ({"--video": person / "expert.wav"}, ["expert.wav has no video stream"]),
        ({"--video": short_video, "--length-tolerance-s": 9}, ["short.mp4", "2.00 s", "exclude"]),
        ({"--roi": "0,0,65,48"}, ["roi 0,0,65,48", "64x48"]),
        ({"--audio-channel": 1}, ["expert.wav has 1 audio channel"]),
    ]:
        assert main(arguments(person, out, **over)) == 1
        screen = capsys.readouterr().err
        assert len(screen.splitlines()) <= 3 and "Traceback" not in screen
        for word in words:
            assert word in screen, screen
        assert not out.exists() and list(tmp_path.glob(".out*")) == []


def test_length_tolerance_is_a_setting():
    lengths = {"video": ("v.mp4", 10.0), "labels": ("l.csv", 12.1)}
    with pytest.raises(InputError, match="v.mp4 ends at 10.00 s, labels l.csv at 12.10 s"):
        check_lengths(lengths, 2.0)
    check_lengths(lengths, 2.2)


def test_probe_reads_packets_only(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", frames=2000, audio=tone(80.0))
    decoded = []
    original = probe_module.video_frames
    monkeypatch.setattr(
        probe_module,
        "video_frames",
        lambda *a, **k: (decoded.append(1) or f for f in original(*a, **k)),
    )
    info = probe(path)
    assert len(decoded) == 1
    assert info.duration_s == pytest.approx(80.0, abs=0.1)
    assert info.audio.duration_s == pytest.approx(80.0, abs=0.1)
    assert stated_length(path) == pytest.approx(80.0, abs=0.1)
