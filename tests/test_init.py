"""Sheets made from folders: official layouts, empty seats, own recordings."""

import os
from pathlib import Path

import pytest
from media_files import tone, write_video, write_wav
from stream_trees import EGEMAPS, W2VBERT, label, values
from stream_trees import put as put_stream

from corpora import challenge, folder
from corpora.__main__ import main
from corpora.layout import NO_SOUND
from corpora.sheet import read_sheet, write_sheet
from runtime import InputError
from workflow.config import load_config, merge
from workflow.study import Study

ROOT = Path(__file__).resolve().parent.parent
REALCLIPS = Path(os.environ.get("REALCLIPS", ROOT.parent / "shared" / "corpora" / "realclips"))


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    base = tmp_path_factory.mktemp("media")
    write_video(base / "mute.mp4", frames=5)
    write_video(base / "sound.mp4", frames=5, audio=tone(0.2))
    write_wav(base / "a.wav", tone(0.2))
    return base


def put(media, path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((media / kind).read_bytes())


def noxi_person(media, session, role, labels=True):
    put(media, session / f"{role}.video.mp4", "mute.mp4")
    put(media, session / f"{role}.audio.wav", "a.wav")
    if labels:
        (session / f"{role}.engagement.annotation.csv").write_text("0.5\n")


def checked(rows, root, tmp_path):
    """What the printed sheet reads back as."""
    path = tmp_path / "sessions.tsv"
    path.write_text(write_sheet(rows), encoding="utf-8")
    return read_sheet(path, root)


@pytest.mark.parametrize("below", ["", "noxi", "NoXi"])
def test_noxi(media, tmp_path, below):
    root = tmp_path / "corpus"
    top = root / below
    for part, session, labels in [
        ("train", "001", True), ("val", "007", True), ("test-base", "002", False), ("test-additional", "015", False),
    ]:  # fmt: skip
        for role in ("expert", "novice"):
            noxi_person(media, top / part / session, role, labels)
    first = top / "train" / "001"
    (first / "language.annotation.csv").write_text("0.0;1200.0;French;1.0\n")
    (first / "expert.gender.annotation.csv").write_text("0;1200;2;1\n")
    (first / "novice.gender.annotation.csv").write_text("0;1200;1;1\n")
    (first / "expert.age.annotation.csv").write_text("0;1200;27;1\n")
    (first / "novice.age.annotation.csv").write_bytes("0;1200;über;1\n".encode("latin-1"))
    (first / "expert.gaze.stream").touch()
    rows = checked(challenge.find(root), root, tmp_path)
    assert [(p.dataset, p.split, p.session, p.role, bool(p.labels)) for p in rows] == [
        ("noxi", "train", "001", "expert", True), ("noxi", "train", "001", "novice", True),
        ("noxi", "val", "007", "expert", True), ("noxi", "val", "007", "novice", True),
        ("noxi", "test", "002", "expert", False), ("noxi", "test", "002", "novice", False),
        ("noxi-add", "test", "015", "expert", False), ("noxi-add", "test", "015", "novice", False),
    ]  # fmt: skip
    assert [(p.language, p.gender, p.age) for p in rows[:3]] == [
        ("French", "female", 27.0), ("French", "male", None), ("", "", None),
    ]  # fmt: skip
    assert rows[0].audio == str(first / "expert.audio.wav")


def test_labels_of_test_sessions_from_a_second_tree(media, tmp_path, capsys):
    root, truth = tmp_path / "corpus", tmp_path / "truth"
    for part, session in [("train", "001"), ("test-base", "002"), ("test-additional", "015")]:
        noxi_person(media, root / "noxi" / part / session, "expert", part == "train")
        place = truth / "noxi" / part / session
        place.mkdir(parents=True)
        (place / "expert.engagement.annotation.csv").write_text("0.1\n")
    assert main(["init", "noxi", str(root), "--labels", str(truth)]) == 0
    path = tmp_path / "sessions.tsv"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    rows = read_sheet(path, root)
    where = [os.path.relpath(p.labels, tmp_path).split(os.sep)[0] for p in rows]
    assert where == ["corpus", "truth", "truth"]  # a label beside the media comes first


def test_sound_may_live_in_the_video_and_an_empty_seat_has_none(media, tmp_path):
    session = tmp_path / "corpus" / "train" / "001"
    put(media, session / "expert.video.mp4", "sound.mp4")
    put(media, session / "novice.video.mp4", "mute.mp4")
    put(media, session / "ghost.audio.wav", "a.wav")
    rows = checked(challenge.find(tmp_path / "corpus"), tmp_path / "corpus", tmp_path)
    assert [(p.role, p.audio, p.exclude, p.exclude_reason) for p in rows] == [
        ("expert", "", False, ""), ("novice", "", True, NO_SOUND),
    ]  # fmt: skip


@pytest.mark.parametrize("above", ["mpii/MultiMediate25", "MultiMediate25", "."])
def test_mpiigi_groups_seats_and_parallel_labels(media, tmp_path, above):
    root = tmp_path / "corpus"
    top = root / above
    for split, session in [("val", "008"), ("val", "026"), ("test", "001")]:
        place = top / split / f"originalAudioVideo-{split}" / session
        for seat in range(1, 5):
            if session == "026" and seat == 1:
                continue  # an empty seat without any file
            put(media, place / f"subjectPos{seat}.mp4", "mute.mp4")
            if session == "001" and seat == 4:
                continue  # an empty chair with a picture only
            put(media, place / f"subjectPos{seat}.wav", "a.wav")
            if split == "val":
                labels = top / split / f"engagement-annotations-{split}" / session
                labels.mkdir(parents=True, exist_ok=True)
                (labels / f"subjectPos{seat}.engagement.annotation.csv").write_text("0.5\n")
    put(media, top / "test" / "originalAudioVideo-test" / "001" / "s.mp4", "mute.mp4")
    rows = checked(challenge.find(root, corpus="mpiigi"), root, tmp_path)
    assert {p.dataset for p in rows} == {"mpiigi"}
    count = {}
    for p in rows:
        count.setdefault((p.split, p.session), []).append((p.role[-1], bool(p.labels), p.exclude))
    assert count == {
        ("val", "008"): [(s, True, False) for s in "1234"],
        ("val", "026"): [(s, True, False) for s in "234"],
        ("test", "001"): [("1", False, False), ("2", False, False), ("3", False, False), ("4", False, True)],
    }  # fmt: skip


def test_own_folder(media, tmp_path, capsys):
    root = tmp_path / "my talks"
    put(media, root / "talk 1" / "anna.MP4", "mute.mp4")
    put(media, root / "talk 1" / "anna.m4a", "a.wav")
    put(media, root / "talk 1" / "ben.mkv", "sound.mp4")
    put(media, root / "talk2" / "-dora.mov", "sound.mp4")
    (root / "talk 1" / "anna.csv").write_text("0.5\n")
    (root / ".hidden").mkdir()
    assert main(["init", "folder", str(root), "--split", "val"]) == 0
    out = capsys.readouterr()
    assert "'talk 1' is called talk_1" in out.err
    path = tmp_path / "sessions.tsv"
    path.write_text(out.out, encoding="utf-8")
    rows = read_sheet(path, root)
    assert [(p.dataset, p.split, p.session, p.role) for p in rows] == [
        ("my_talks", "val", "talk_1", "anna"), ("my_talks", "val", "talk_1", "ben"), ("my_talks", "val", "talk2", "dora"),
    ]  # fmt: skip
    assert rows[0].labels.endswith("talk 1/anna.csv") and rows[0].audio.endswith("anna.m4a")
    assert rows[1].audio == ""
    assert main(["check", str(path), "--media-root", str(root)]) == 0
    assert "my_talks/val: 2 sessions, 3 participants (1 with labels)" in capsys.readouterr().out


def test_own_folder_refuses_what_is_ambiguous(media, tmp_path):
    put(media, tmp_path / "a" / "s" / "r.mp4", "sound.mp4")
    put(media, tmp_path / "a" / "s" / "r.mkv", "sound.mp4")
    with pytest.raises(InputError, match="both r.mkv and r.mp4"):
        folder.find(tmp_path / "a")
    put(media, tmp_path / "b" / "s 1" / "r.mp4", "sound.mp4")
    put(media, tmp_path / "b" / "s_1" / "q.mp4", "sound.mp4")
    with pytest.raises(InputError, match="same name s_1"):
        folder.find(tmp_path / "b")
    put(media, tmp_path / "c" / "s" / "r 1.mp4", "sound.mp4")
    put(media, tmp_path / "c" / "s" / "r_1.mp4", "sound.mp4")
    with pytest.raises(InputError, match="same name s r_1"):
        folder.find(tmp_path / "c")


@pytest.mark.parametrize("kind", ["noxi", "mpiigi", "folder"])
def test_nothing_there(tmp_path, kind, capsys):
    assert main(["init", kind, str(tmp_path / "none")]) == 1
    assert main(["init", kind, str(tmp_path)]) == 1
    out = capsys.readouterr()
    assert out.out == "" and len(out.err.splitlines()) == 4


def test_sheets_of_two_corpora_join_by_cat(media, tmp_path, capsys):
    noxi_person(media, tmp_path / "all" / "noxi" / "train" / "001", "expert")
    place = tmp_path / "all" / "groups" / "val" / "originalAudioVideo-val" / "008"
    put(media, place / "subjectPos1.mp4", "sound.mp4")
    base = ["--relative-to", str(tmp_path / "all")]
    assert main(["init", "noxi", str(tmp_path / "all" / "noxi"), *base]) == 0
    assert main(["init", "mpiigi", str(tmp_path / "all" / "groups"), *base, "--no-header"]) == 0
    path = tmp_path / "all" / "sessions.tsv"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert [p.dataset for p in read_sheet(path)] == ["noxi", "mpiigi"]


def streams(place, role, *features, rows=120):
    for feature in features:
        put_stream(place, role, feature, values(rows, 3))


@pytest.mark.parametrize("infix", ["clip", "video.clip"])
def test_streams_alone_make_a_sheet(tmp_path, infix, capsys):
    """Every layout of a download without media: splits, labels, seats, partners, facts."""
    root = tmp_path / "all"
    train = root / "NoXi/train/001"
    for role in ("expert", "novice"):
        streams(train, role, EGEMAPS, infix)
        label(train, role, 120)
        streams(root / "NoXi/test-additional/015", role, EGEMAPS, infix)
    streams(train, "s", infix)  # a view of the scene
    (train / "language.annotation.csv").write_text("0.0;1200.0;French;1.0\n")
    (train / "expert.gender.annotation.csv").write_text("0;1200;2;1\n")
    (train / "novice.age.annotation.csv").write_text("0;1200;31;1\n")
    streams(root / "NoXi/val/001b", "expert", EGEMAPS)  # its expert has no label
    assert main(["init", "noxi", str(root)]) == 0
    out = capsys.readouterr()
    (tmp_path / "s.tsv").write_text(out.out, encoding="utf-8")
    rows = read_sheet(tmp_path / "s.tsv", root)
    assert [(p.dataset, p.split, p.session, p.role, bool(p.labels)) for p in rows] == [
        ("noxi", "train", "001", "expert", True), ("noxi", "train", "001", "novice", True),
        ("noxi", "val", "001b", "expert", False),
        ("noxi-add", "test", "015", "expert", False), ("noxi-add", "test", "015", "novice", False),
    ]  # fmt: skip
    assert {(p.video, p.audio, p.exclude) for p in rows} == {("", "", False)}
    assert rows[0].streams == str(train / "expert")
    facts = [(p.language, p.gender, p.age) for p in rows[:2]]
    assert facts == [("French", "female", None), ("French", "", 31.0)]
    assert "noxi/train: 1 of 38 official sessions, missing 003" in out.err
    assert "noxi/001b lies in val, in no official split" in out.err
    assert main(["check", str(tmp_path / "s.tsv"), "--media-root", str(root)]) == 0
    assert "0.01 hours of streams" in capsys.readouterr().out  # 5 people, 4.8 s each


def test_mpiigi_streams_in_trees_of_their_own(media, tmp_path):
    """Media, streams and labels in parallel trees; seats that are empty in one of them."""
    root = tmp_path / "corpus"
    top = root / "mpii/MultiMediate25"
    media_place = top / "val/originalAudioVideo-val/008"
    put(media, media_place / "subjectPos1.mp4", "mute.mp4")
    put(media, media_place / "subjectPos1.wav", "a.wav")
    put(media, media_place / "subjectPos2.wav", "a.wav")  # sound, no video, but streams
    place = top / "val/precomputed-features-val/008"
    streams(place, "subjectPos1", EGEMAPS, "clip")
    streams(place, "subjectPos2", EGEMAPS, "clip")
    streams(place, "subjectPos3", "clip")  # an empty chair
    streams(place, "subjectPos4", EGEMAPS, "clip")
    streams(top / "test/precomputed-features-test/002", "s", "clip")
    streams(top / "test/precomputed-features-test/002", "subjectPos1", EGEMAPS)
    for seat in (1, 2):
        label(top / "val/engagement-annotations-val/008", f"subjectPos{seat}", 120)
    rows = checked(challenge.find(root, corpus="mpiigi"), root, tmp_path)
    got = [
        (p.split, p.role[-1], bool(p.video), bool(p.audio), bool(p.labels), bool(p.streams), p.exclude_reason)
        for p in rows
    ]  # fmt: skip
    assert got == [
        ("val", "1", True, True, True, True, ""),
        ("val", "2", False, True, True, True, ""),
        ("val", "3", False, False, False, True, NO_SOUND),
        ("val", "4", False, False, False, True, ""),
        ("test", "1", False, False, False, True, ""),
    ]


def test_the_flat_mpiigi_tree_of_2024(media, tmp_path):
    for session in ("008", "001"):
        streams(tmp_path / "MPIIGI" / session, "subjectPos1", EGEMAPS, "video.openpose")
    label(tmp_path / "MPIIGI/008", "subjectPos1", 120)
    put(media, tmp_path / "MPIIGI/008/subjectPos1.audio.wav", "a.wav")
    rows = checked(challenge.find(tmp_path, corpus="mpiigi"), tmp_path, tmp_path)
    assert [(p.split, p.session, bool(p.audio), bool(p.labels)) for p in rows] == [
        ("val", "008", True, True), ("test", "001", False, False),
    ]  # fmt: skip


def test_the_mpiigi_tree_of_the_organisers(tmp_path):
    """Sessions directly in their split, labels beside the streams."""
    for split, session in (("val", "008"), ("test", "001")):
        streams(tmp_path / "mpiigroupinteraction" / split / session, "subjectPos1", EGEMAPS, "clip")
    label(tmp_path / "mpiigroupinteraction/val/008", "subjectPos1", 120)
    rows = checked(challenge.find(tmp_path, corpus="mpiigi"), tmp_path, tmp_path)
    assert [(p.dataset, p.split, p.session, p.role, bool(p.labels)) for p in rows] == [
        ("mpiigi", "val", "008", "subjectPos1", True), ("mpiigi", "test", "001", "subjectPos1", False),
    ]  # fmt: skip


def test_noxi_j_and_pinsoro(media, tmp_path):
    root = tmp_path / "all"
    streams(root / "Noxi-J/test/127", "expert", EGEMAPS, W2VBERT, "clip")
    streams(root / "NoXi/train/001", "expert", EGEMAPS)
    rows = checked(challenge.find(root, corpus="noxi-j"), root, tmp_path)
    assert [(p.dataset, p.split, p.session) for p in rows] == [("noxi-j", "test", "127")]
    streams(root / "NoXi/test-base/002", "expert", EGEMAPS)
    rows = challenge.find(root / "NoXi", corpus="noxi-j")  # the wrong folder: no splits of NoXi's
    assert [(p.dataset, p.session) for p in rows] == [("noxi-j", "001")]
    for kind, session in (("cc", "07"), ("cr", "09")):
        place = root / f"Pinsoro/train-{kind}/{session}"
        for role in ("purple", "yellow"):
            streams(place, role, EGEMAPS, "clip")
            label(place, role, 144, "task_engagement")
            label(place, role, 144, "task_engagement.1")  # a second rater
        streams(place, "env", "clip")
    put(media, root / "Pinsoro/train-cc/07/purple.video.mp4", "mute.mp4")
    rows = checked(challenge.find(root, corpus="pinsoro", dataset="play"), root, tmp_path)
    assert [(p.dataset, p.session, p.role, p.labels.count("task_engagement.annotation")) for p in rows] == [
        ("play-cc", "07", "purple", 1), ("play-cc", "07", "yellow", 1),
        ("play-cr", "09", "purple", 1), ("play-cr", "09", "yellow", 0),
    ]  # fmt: skip
    # Heard in the streams: no empty seat, and the mute video is of no use.
    assert (rows[0].video, rows[0].exclude) == ("", False)
    rows = challenge.find(root, corpus="pinsoro")
    assert [(p.dataset, p.role) for p in rows if not p.labels] == [("pinsoro-cr", "yellow")]


def test_labels_of_a_second_tree_for_people_with_streams(tmp_path):
    root, truth = tmp_path / "corpus", tmp_path / "truth"
    streams(root / "noxi/test-base/002", "expert", EGEMAPS)
    label(truth / "noxi/test-base/002", "expert", 120)
    rows = checked(challenge.find(root, labels=truth), root, tmp_path)
    assert os.path.samefile(
        rows[0].labels, truth / "noxi/test-base/002/expert.engagement.annotation.csv"
    )


def test_streams_of_another_recording_exclude_the_person(tmp_path, caplog):
    """One tenth of NoXi-J 148's lengths: the expert's pictures are those of another session."""
    folder = tmp_path / "Noxi-J/test/148"
    for role, rows in (("expert", 2254), ("novice", 1775)):
        streams(folder, role, EGEMAPS, rows=1775)
        streams(folder, role, "clip", rows=rows)
    expert, novice = checked(challenge.find(tmp_path, corpus="noxi-j"), tmp_path, tmp_path)
    assert expert.exclude and not novice.exclude
    assert expert.exclude_reason == "clip lasts 90.16 s, the sound 71.00 s: another recording"
    assert "noxi-j/148 expert: clip lasts 90.16 s" in caplog.text


def test_pictures_of_another_recording_than_the_sound_file(media, tmp_path):
    """Who has the pictures' streams and extracts sound from the media: their lengths still count."""
    folder = tmp_path / "Noxi-J/test/148"
    for role, seconds in (("expert", 20), ("novice", 2)):
        put(media, folder / f"{role}.audio.wav", "a.wav")  # 0.2 s
        streams(folder, role, "clip", rows=seconds * 25)
    expert, novice = checked(challenge.find(tmp_path, corpus="noxi-j"), tmp_path, tmp_path)
    assert expert.exclude_reason.startswith("clip lasts 20.00 s, the sound 0.20 s")
    assert not novice.exclude


def test_without_any_sound_nobody_is_an_empty_seat(tmp_path):
    streams(tmp_path / "val/007", "expert", "clip")
    assert not challenge.find(tmp_path)[0].exclude


@pytest.mark.realclips
def test_real_clips(tmp_path, capsys):
    if not REALCLIPS.is_dir():
        pytest.skip(f"the corpus of real clips is not at {REALCLIPS} (set REALCLIPS)")
    assert main(["init", "noxi", str(REALCLIPS)]) == 0
    assert main(["init", "mpiigi", str(REALCLIPS), "--no-header"]) == 0
    path = tmp_path / "sessions.tsv"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    rows = read_sheet(path, REALCLIPS)
    count = {}
    for p in rows:
        key = f"{p.dataset}/{p.split}"
        people, labelled = count.get(key, (0, 0))
        count[key] = (people + 1, labelled + bool(p.labels))
    by_hand = {
        "noxi/train": 8, "noxi/val": 4, "noxi/test": 2, "noxi-add/test": 2, "mpiigi/val": 7, "mpiigi/test": 3,
    }  # fmt: skip
    labelled = ("noxi/train", "noxi/val", "mpiigi/val")
    assert count == {k: (n, n if k in labelled else 0) for k, n in by_hand.items()}
    assert not any(p.exclude for p in rows)


@pytest.mark.realclips
def test_the_preset_of_the_real_clips_trains_on_nobody_it_evaluates():
    """Some of its people share a sound, byte by byte; the preset leaves those sessions apart."""
    if not REALCLIPS.is_dir():
        pytest.skip(f"the corpus of real clips is not at {REALCLIPS} (set REALCLIPS)")
    preset = load_config([ROOT / "presets/realclips.yaml"])
    config = preset | {"media_root": str(REALCLIPS)}
    assert "mpiigi/val" in Study(config).runs["da_mamba"].evaluate
    every = merge(config, {"defaults": {"evaluate": ["mpiigi/test"]}})
    with pytest.raises(InputError, match="noxi/001.*mpiigi/001.*equal byte by byte"):
        Study(every)
