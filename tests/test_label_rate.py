"""Labels written at one common rate and read at another."""

import json

import pytest

from alignment.labels import check_length
from formats.label_rate import check_rate, fitting_rate
from media.probe import participant_record
from runtime import InputError


@pytest.mark.parametrize(
    "rows, rate_hz, media_s, written",
    [
        (720, 25, 30.0, 24),  # the case of the tolerance of 2 s
        (719, 25, 30.0, 23.976),
        (1000, 50, 40.0, 25),
        (900, 25, 30.0, 30),
        (1500, 25, 30.0, 50),
        (17982, 30, 600.0, 29.970),
        (18000, 29.97, 600.0, 30),
        (721, 25, 30.02, 24),
    ],
)
def test_another_rate_is_named(rows, rate_hz, media_s, written):
    assert fitting_rate(rows, rate_hz, media_s) == pytest.approx(written, abs=1e-3)
    with pytest.raises(InputError, match=f"{written:.5g} Hz") as e:
        check_rate("l.csv", rows, rate_hz, media_s)
    assert f"set labels.rate_hz to {written:.5g} " in e.value.cure


@pytest.mark.parametrize(
    "rows, rate_hz, media_s",
    [
        (750, 25, 30.0),
        (749, 25, 30.0),
        (750, 25, 30.2),  # the sound ends later
        (735, 25, 30.0),  # the rating ended early, at no common rate
        (720, 25, 30.2),
        (48, 25, 2.0),  # two labels of so few tell nothing
        (10, 12.5, 0.8),
        (375, 12.5, 30.0),  # a rate of one's own
        (30000, 25, 1201.0),
    ],
)
def test_what_fits_its_own_rate_or_none_passes(rows, rate_hz, media_s):
    check_rate("l.csv", rows, rate_hz, media_s)


def test_the_label_job_and_the_probe_refuse_it(tmp_path):
    probe = {"dataset": "d", "session": "1", "role": "a", "duration_s": 30.0}
    with pytest.raises(InputError, match="28.80 s at 25 Hz, but 30.00 s at 24 Hz"):
        check_length("l.csv", 720, 25.0, probe, 2.0)
    check_length("l.csv", 720, 24.0, probe, 2.0)


def test_the_probe_refuses_it(tmp_path):
    import numpy as np
    import soundfile
    from media_files import write_video

    write_video(tmp_path / "v.mp4", frames=500)  # 20 s
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 320_000), 16000)
    (tmp_path / "l.csv").write_text("0.5\n" * 480)
    person = {"dataset": "d", "session": "1", "role": "a"}
    files = {"video": tmp_path / "v.mp4", "audio": tmp_path / "a.wav", "labels": tmp_path / "l.csv"}
    with pytest.raises(InputError, match="20.00 s at 24 Hz"):
        participant_record(**files, **person)
    record = participant_record(**files, **person, label_rate_hz=24.0)
    assert json.loads(json.dumps(record["labels"]))["values"] == 480
