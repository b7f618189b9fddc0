"""A dead microphone, a face that is never found: those features are not valid, all others count."""

import json

import h5py
import numpy as np
import pytest
import soundfile
from aligned_files import clock_file, results_folder
from face_files import write_faces
from media_files import tone, write_video, write_wav
from model_data import write_corpus
from test_study import sheet, study  # noqa: F401 - sheet is a fixture

from alignment import qc
from alignment.align import align
from alignment.aligned import AlignedFeature
from extractors import faces
from extractors.crops import read_crops
from extractors.face_track import FaceCrops
from extractors.run import extract
from extractors.sound import Sound
from media import probe
from runtime import InputError
from store.features import read_features
from store.session_spec import parse_spec
from training.statistics import compute
from workflow.digest import summary
from workflow.unusable import refuse_faceless, unusable


@pytest.mark.parametrize("name", ["egemaps", "egemaps_lld"])
@pytest.mark.parametrize("level", [0.0, 9e-5])
def test_of_a_silent_recording_every_row_stands_and_none_is_valid(tmp_path, name, level):
    soundfile.write(tmp_path / "dead.wav", np.full(5 * 16000, level, np.float32), 16000, "FLOAT")
    write_wav(tmp_path / "live.wav", tone(5.0))
    counts = extract(name, tmp_path / "dead.h5", Sound(tmp_path / "dead.wav"))
    extract(name, tmp_path / "live.h5", Sound(tmp_path / "live.wav"))
    dead, live = read_features(tmp_path / "dead.h5"), read_features(tmp_path / "live.h5")
    np.testing.assert_array_equal(dead.time, live.time)
    assert not dead.valid.any() and live.valid.any()
    assert np.isnan(dead.values).all() and dead.values.shape == live.values.shape
    assert counts["rows"] == len(dead.time) and counts["valid"] == 0
    align(tmp_path / "dead.h5", clock_file(tmp_path / "c.json", 5.0), tmp_path / "aligned.h5")
    with AlignedFeature(tmp_path / "aligned.h5") as feature:
        assert feature.n_ticks == 500 and not feature.valid(0, 500).any()


def test_one_sample_above_the_limit_is_a_sound(tmp_path):
    sound = np.zeros(5 * 16000, np.float32)
    sound[40000] = 2e-4
    soundfile.write(tmp_path / "a.wav", sound, 16000, "FLOAT")
    extract("egemaps", tmp_path / "a.h5", Sound(tmp_path / "a.wav"))
    valid = read_features(tmp_path / "a.h5").valid
    assert valid[24:].all() and not valid[:24].any()


def test_a_probe_of_silence_says_so_or_refuses(tmp_path):
    video = write_video(tmp_path / "v.mp4", frames=125)
    dead = write_wav(tmp_path / "dead.wav", np.zeros(5 * 16000))
    record = probe.participant_record(video, dead, "d", "s", "r")
    assert record["audio"]["silent"] is True and record["audio"]["duration_s"] == 5.0
    sound = write_wav(tmp_path / "live.wav", tone(5.0))
    assert probe.participant_record(video, sound, "d", "s", "r")["audio"]["silent"] is False
    with pytest.raises(InputError, match=r"dead\.wav is silent.*\n.*media\.unusable"):
        probe.participant_record(video, dead, "d", "s", "r", unusable="refuse")


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    """The face track of 30 pictures of a wall."""
    folder = tmp_path_factory.mktemp("wall")
    grey = np.full((96, 128, 3), 150, np.uint8)
    write_video(folder / "wall.mp4", frames=30, picture=grey)
    counts = faces.extract(folder / "wall.mp4", folder / "f.h5", folder / "c.mkv", crop_size=64)
    return folder, counts


def test_without_any_face_every_frame_has_a_row_that_is_not_valid(wall):
    folder, counts = wall
    track = read_features(folder / "f.h5")
    np.testing.assert_allclose(track.time, np.arange(30) / 25, atol=1e-6)
    assert track.values.shape == (30, 936) and np.isnan(track.values).all()
    assert not track.valid.any() and (track.extra["confidence"] == 0).all()
    assert track.attributes["native_rate_hz"] == pytest.approx(25.0)
    assert (track.attributes["width"], track.attributes["height"]) == (128, 96)
    assert (counts["frames"], counts["valid"], counts["gaps"]) == (30, 0, 1)
    assert all(picture.max() < 8 for picture in read_crops(folder / "c.mkv", 30))


def test_features_of_a_face_that_is_never_found_are_not_valid(wall):
    folder, _ = wall
    for name in ("flow", "flow_magnitude"):
        extract(name, folder / f"{name}.h5", FaceCrops(folder / "f.h5", folder / "c.mkv"))
        found = read_features(folder / f"{name}.h5")
        assert len(found.time) == 30 and not found.valid.any() and np.isnan(found.values).all()


def silence(results, specs, feature, role):
    """Make a feature of one role not valid everywhere, as the extractors do."""
    for spec in map(parse_spec, specs):
        place = f"{spec.dataset}/{spec.session}"
        source = results / "features" / place / role / f"{feature}.h5"
        with h5py.File(source, "r+") as file:
            file["valid"][...] = False
            file["values"][...] = np.nan
        clock = results / "aligned" / place / "clock.json"
        align(source, clock, results / "aligned" / place / role / f"{feature}.h5")


def test_statistics_are_those_of_the_people_who_are_heard(tmp_path):
    specs = write_corpus(tmp_path, dyads=2, seconds=6.0)
    before, _ = compute(tmp_path, specs, ["egemaps", "flow"], 25.0)
    silence(tmp_path, specs, "egemaps", "novice")
    after, _ = compute(tmp_path, specs, ["egemaps", "flow"], 25.0)
    heard = np.concatenate(
        [read_features(tmp_path / f"features/noxi/{s}/expert/egemaps.h5").values for s in ("001", "002")]
    ).astype(np.float64)  # fmt: skip
    assert after["egemaps"].n == len(heard)
    np.testing.assert_allclose(after["egemaps"].mean, heard.mean(axis=0))
    np.testing.assert_array_equal(after["flow"].mean, before["flow"].mean)
    assert after["flow"].n == before["flow"].n


def test_the_quality_table_names_what_holds_nothing(tmp_path):
    results = results_folder(tmp_path)
    write_wav(results / "dead.wav", np.zeros(16000 * 6))
    write_wav(results / "live.wav", tone(5.0))
    track = write_faces(results / "none.h5", np.arange(115) / 25, np.zeros(115, bool))
    track.replace(results / "faces/noxi/001/novice.h5")
    spec = parse_spec("noxi/001:expert,novice")
    audio = {"expert": (results / "dead.wav", None), "novice": (results / "live.wav", None)}
    record, _ = qc.session_quality(spec, results, ["clip_face"], audio=audio, faces=True)
    assert [p["unusable"] for p in record["participants"]] == [["sound"], ["face"]]
    rows = qc.summary_rows([record])
    assert [row["unusable"] for row in rows] == ["sound", "face"]
    assert rows[0]["silent"] == 1.0 and rows[1]["face_rate"] == 0.0


def write_records(s):
    """What `probe` and `faces` write: 001 expert has no sound, 007 expert no face."""
    for session, role, silent, frames in (
        ("001", "expert", True, 5), ("001", "novice", False, 5), ("007", "expert", False, 0),
    ):  # fmt: skip
        for place, record in (("media", {"audio": {"silent": silent}}), ("faces", {"counts": {"valid": frames}})):  # fmt: skip
            path = s / place / "noxi" / session / f"{role}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record))


def test_the_end_of_a_run_says_it_and_the_option_refuses_at_the_start(sheet, tmp_path):  # noqa: F811
    write_records(tmp_path / "results")
    s = study(sheet, results=str(tmp_path / "results"))
    assert unusable(s) == [
        "noxi/001 expert: the sound is silent, so no feature of it is valid",
        "noxi/007 expert: no face was found in any frame, so no feature of the face is valid",
    ]
    assert "unusable noxi/001 expert: the sound is silent" in summary(s, [])
    refuse_faceless(s)  # as it stands nothing is refused
    s = study(sheet, results=str(tmp_path / "results"), media={"unusable": "refuse"})
    with pytest.raises(InputError, match=r"007/expert\.mp4: no face.*\n.*line 4 of"):
        refuse_faceless(s)
