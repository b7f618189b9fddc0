"""The doctor on miniature trees: every known defect is found, and nothing else is."""

import os
import resource

import numpy as np
import pytest
from stream_trees import EGEMAPS, W2VBERT, label, openface, put, truncate, values

from corpora.__main__ import main
from corpora.doctor import ACTIONS, LABEL_TOLERANCE_S, examine
from corpora.streams import find_people
from formats.ssi.rate import infer_rate
from runtime import InputError
from workflow.config import load_config


def found(root, corpus):
    rows = examine(find_people(root, corpus))
    assert all(f.action == ACTIONS[f.defect] for f in rows)
    got = [(f"{f.dataset}/{f.session}", f.role, f.feature, f.defect) for f in rows]
    assert len(got) == len(set(got)), "the same finding twice"
    return set(got)


def sound(folder, role, rows=500, seed=0):
    """eGeMAPS as it should be: some functionals really reach 1e6."""
    x = values(rows, 88, seed)
    x[:, 7] *= 1e6
    put(folder, role, EGEMAPS, x)


def dyad(folder, rows=500, labels=True, seed=0):
    for i, role in enumerate(("expert", "novice")):
        sound(folder, role, rows, seed + i)
        if labels:
            label(folder, role, rows)


def test_a_clean_tree_has_no_finding(tmp_path):
    dyad(tmp_path / "noxi/train/001")
    dyad(tmp_path / "noxi/test-base/002", labels=False, seed=5)
    dyad(tmp_path / "noxi/test-additional/015", labels=False, seed=9)
    people = find_people(tmp_path, "noxi")
    assert {(p.dataset, p.split) for p in people} == {
        ("noxi", "train"),
        ("noxi", "test"),
        ("noxi-add", "test"),
    }
    assert found(tmp_path, "noxi") == set()


def test_noxi(tmp_path):
    one, two = tmp_path / "noxi/train/001", tmp_path / "noxi/test-base/002"
    dyad(one)
    dyad(two, labels=False, seed=5)
    for i, (folder, role) in enumerate([(f, r) for f in (one, two) for r in ("expert", "novice")]):
        put(folder, role, W2VBERT, values(500, 1024, i), rate=40.0)
        put(folder, role, "openface2", openface(501, i))
        put(folder, role, "openpose", values(500, 139, i, fill=-1))
    # 2131 rows at 2 Hz in the corpus: here 40 rows in 20 s; all have the feature.
    for i, (folder, role) in enumerate([(f, r) for f in (one, two) for r in ("expert", "novice")]):
        slow = folder == one and role == "expert"
        put(folder, role, "audio.xlm_roberta_embeddings", values(40 if slow else 500, 768, i), 2.0 if slow else 25.0)  # fmt: skip
    truncate(two / f"novice.{W2VBERT}.stream", 0.82, 1024)
    people = [("noxi/001", "expert"), ("noxi/001", "novice"), ("noxi/002", "expert"), ("noxi/002", "novice")]  # fmt: skip
    expected = {(*p, W2VBERT, "wrong_rate") for p in people}
    expected |= {(*p, "openface2", "leaking_columns") for p in people}
    expected |= {(*p, "openpose", "undetected_points") for p in people}
    expected |= {
        ("noxi/001", "expert", "audio.xlm_roberta_embeddings", "unusual_rate"),
        ("noxi/002", "novice", W2VBERT, "truncated"),
    }
    assert found(tmp_path, "noxi") == expected


def test_noxi_j_visual_streams_of_other_sessions(tmp_path):
    """The lengths of sessions 147 to 150, one tenth of them (147: 63 frames, kept as they are)."""
    lengths = {"147": (17763, 17700), "148": (2254, 1775), "149": (1714, 2252), "150": (1771, 1712)}
    for session, (visual, audio) in lengths.items():
        folder = tmp_path / "Noxi-J/test" / session
        for i, role in enumerate(("expert", "novice")):
            seed = int(session) + i
            put(folder, role, EGEMAPS, values(audio, 88, seed))
            put(folder, role, "openface3", values(visual if role == "expert" else audio, 21, seed))
    got = found(tmp_path, "noxi-j")
    # 150 differs by 59 tenth-length frames here (2.36 s): within what streams differ by.
    assert got == {(f"noxi-j/{s}", "expert", "openface3", "shifted") for s in ("147", "148", "149")}
    put(tmp_path / "Noxi-J/test/150", "expert", "openface3", values(1712 + 580, 21))
    assert ("noxi-j/150", "expert", "openface3", "shifted") in found(tmp_path, "noxi-j")


def test_mpiigi(tmp_path):
    base = tmp_path / "mpii/MultiMediate25/val"
    features, labels = base / "precomputed-features-val", base / "engagement-annotations-val"
    shared = values(500, 88, 77)  # one microphone in the room
    for session, seats in {"008": (1, 2, 3, 4), "026": (2, 3, 4), "028": (1, 2, 3, 4)}.items():
        for seat in seats:
            role = f"subjectPos{seat}"
            put(features / session, role, EGEMAPS, shared + int(session))
            put(features / session, role, "dino", values(500, 2304, seat))
            if (session, seat) != ("028", 1):
                label(labels / session, role, 500)
    put(features / "026", "subjectPos1", "dino", values(500, 2304, 1))  # an empty seat
    put(features / "008", "s", "dino", values(500, 2304, 9))  # the scene
    got = found(tmp_path, "mpiigi")
    everybody = [(s, f"subjectPos{i}") for s in ("008", "026", "028") for i in (1, 2, 3, 4)]
    heard = [p for p in everybody if p != ("026", "subjectPos1")]
    expected = {(f"mpiigi/{s}", r, "dino", "other_dimension") for s, r in everybody}
    expected |= {(f"mpiigi/{s}", r, EGEMAPS, "shared_audio") for s, r in heard}
    expected |= {
        ("mpiigi/026", "subjectPos1", "", "empty_seat"),
        ("mpiigi/028", "subjectPos1", "", "no_labels"),
    }
    absent = ("openface3", "openface2", "openpose", "clip", "swin", "videomae")
    expected |= {("mpiigi/*", "*", f, "missing_feature") for f in absent}
    expected |= {("mpiigi/*", "*", f, "missing_feature") for f in (W2VBERT, "audio.xlm_roberta_embeddings")}  # fmt: skip
    assert got == expected


def test_pinsoro(tmp_path):
    folder = tmp_path / "Pinsoro/train-cc/07"
    for i, role in enumerate(("purple", "yellow")):
        label(folder, role, 600, "task_engagement")
        put(folder, role, "openface3", values(600, 21, i), rate=30.0)
        double = values(1000, 88, i, fill=3.7e19)
        put(folder, role, EGEMAPS, double, rows=500)
    put(folder, "env", "openface3", values(600, 21, 5), rate=30.0)
    got = found(tmp_path, "pinsoro")
    both = ("purple", "yellow")
    assert got == {("pinsoro-cc/07", r, EGEMAPS, "doubled") for r in both} | {
        ("pinsoro-cc/07", r, EGEMAPS, "absurd_values") for r in both
    }


def test_names_of_all_years_are_one_feature(tmp_path):
    put(tmp_path / "noxi/train/001", "expert", "video.clip", values(500, 512))
    put(tmp_path / "noxi/train/003", "expert", "clip", values(500, 512))
    assert [set(p.streams) for p in find_people(tmp_path, "noxi")] == [{"clip"}, {"clip"}]
    put(tmp_path / "noxi/train/003", "expert", "video.clip", values(500, 512))
    with pytest.raises(InputError, match=r"expert\.clip\.stream and expert\.video\.clip\.stream"):
        find_people(tmp_path, "noxi")


def test_values_that_are_not_numbers_and_labels_of_another_length(tmp_path):
    folder = tmp_path / "train/001"
    bad = values(500, 88)
    bad[100:200] = np.nan
    put(folder, "expert", EGEMAPS, bad)
    label(folder, "expert", 700)
    got = found(tmp_path, "noxi")
    assert got == {
        ("noxi/001", "expert", EGEMAPS, "not_finite"),
        ("noxi/001", "expert", "", "label_length"),
    }


def test_a_broken_header_is_a_finding_not_a_crash(tmp_path):
    folder = tmp_path / "train/001"
    sound(folder, "expert")
    label(folder, "expert", 500)
    (folder / "expert.clip.stream").write_text("<stream")
    assert found(tmp_path, "noxi") == {("noxi/001", "expert", "clip", "unreadable")}


@pytest.mark.parametrize(
    ("rows", "declared", "reference", "rate"),
    [
        (500, 25, 20.0, 25),
        (500, 40, 20.0, 25),  # the header of w2vbert2
        (600, 25, 20.0, 30),  # PInSoRo under a wrong header
        (40, 2, 20.0, 2),  # really 2 Hz
        (22547, 25, 17750 / 25, 25),  # another recording, not another rate
        (17140, 25, 22525 / 25, 25),
        (500, 40, None, 40),
        (0, 40, 20.0, 40),
    ],
)
def test_a_rate_is_overruled_only_by_a_usual_one(rows, declared, reference, rate):
    assert infer_rate(rows, declared, reference) == rate


def test_the_command_prints_a_row_per_finding(tmp_path, capsys):
    put(tmp_path / "val/007", "expert", "openpose", values(500, 139, fill=-1))
    assert main(["doctor", "noxi", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[:5] == ["dataset", "session", "role", "feature", "defect"]
    assert [line.split("\t")[4] for line in lines[1:]] == ["undetected_points", "no_labels"]
    assert main(["doctor", "mpiigi", str(tmp_path)]) == 1


def test_the_tolerance_for_labels_is_that_of_the_label_job():
    assert load_config()["media"]["length_tolerance_s"] == LABEL_TOLERANCE_S
    assert load_config()["labels"]["rate_hz"] == 25


@pytest.mark.parametrize("lines, told", [(550, False), (551, True), (449, True), (450, False)])
def test_labels_that_the_label_job_would_refuse(tmp_path, lines, told):
    """The recording lasts as long as its longest stream, 20 s."""
    sound(tmp_path / "train/001", "expert", 470)
    put(tmp_path / "train/001", "expert", W2VBERT, values(500, 1024))
    label(tmp_path / "train/001", "expert", lines)
    expected = {("noxi/001", "expert", "", "label_length")} if told else set()
    assert found(tmp_path, "noxi") == expected


def test_a_label_file_that_is_none_is_a_finding_not_a_crash(tmp_path):
    for seed, (role, text) in enumerate([("expert", "frame;value\n0;0.5\n"), ("novice", "")]):
        sound(tmp_path / "train/001", role, seed=seed)
        (tmp_path / f"train/001/{role}.engagement.annotation.csv").write_text(text)
    sound(tmp_path / "train/003", "expert", seed=9)
    label(tmp_path / "train/003", "expert", 500)
    got = found(tmp_path, "noxi")
    assert got == {("noxi/001", role, "", "unreadable") for role in ("expert", "novice")}


@pytest.mark.parametrize("beside", [True, False])
def test_how_two_microphones_lie_in_one_body(tmp_path, beside):
    """Slow random walks: neighbouring rows agree either way, as windows that overlap do."""
    rng = np.random.default_rng(0)
    one = np.cumsum(rng.normal(size=(500, 88)), axis=0)
    both = one, one + rng.normal(size=one.shape)  # n x 88 each
    body = np.hstack(both).reshape(1000, 88) if beside else np.vstack(both)
    body[:: 100 if beside else 50] = 3.7e19
    folder = tmp_path / "train-cc/07"
    put(folder, "purple", EGEMAPS, body.astype(np.float32), rows=500)
    label(folder, "purple", 600, "social_engagement")
    details = {f.defect: f.detail for f in examine(find_people(tmp_path, "pinsoro"))}
    assert set(details) == {"doubled", "absurd_values"}
    how = "side by side in rows of twice the width (left, right)"
    assert details["doubled"].endswith(how if beside else "one after the other (first, second)")


def test_silence_is_no_shared_microphone_and_zeros_are_told(tmp_path):
    for role in ("expert", "novice"):
        put(tmp_path / "test/002", role, EGEMAPS, np.zeros((500, 88), np.float32))
    assert found(tmp_path, "noxi") == {
        ("noxi/002", role, EGEMAPS, "zero_rows") for role in ("expert", "novice")
    }


def test_a_download_of_pictures_only_has_no_empty_seats(tmp_path):
    for role in ("expert", "novice"):
        put(tmp_path / "test/002", role, "clip", values(500, 512))
    assert found(tmp_path, "noxi") == set()


def test_a_corpus_has_more_streams_than_a_process_may_open(tmp_path):
    """The downloads have 1500 and more; 1024 open files are a usual limit."""
    for session in range(30):
        for i, role in enumerate(("expert", "novice")):
            sound(tmp_path / f"test/{session:03d}", role, rows=100, seed=2 * session + i)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        assert examine(find_people(tmp_path, "noxi")) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nobody_rates_the_robot(tmp_path):
    for seed, role in enumerate(("purple", "yellow")):
        sound(tmp_path / "train-cr/09", role, seed=seed)
        sound(tmp_path / "train-cc/07", role, seed=10 + seed)
    assert found(tmp_path, "pinsoro") == {
        ("pinsoro-cr/09", "purple", "", "no_labels"),
        ("pinsoro-cc/07", "purple", "", "no_labels"),
        ("pinsoro-cc/07", "yellow", "", "no_labels"),
    }


def test_a_pause_is_told_and_no_wrong_rate(tmp_path):
    folder = tmp_path / "noxi/train/001"
    for name in (EGEMAPS, W2VBERT):
        put(folder, "expert", name, values(1500, 3, len(name)))
    path = put(folder, "expert", "clip", values(1500, 2), 30.0)
    head = path.read_text().partition("  <chunk")[0]
    piece = '  <chunk from="{}" to="{}" byte="0" num="750" />\n'.format
    path.write_text(head + piece(0.0, 25.0) + piece(35.0, 60.0) + "</stream>\n")
    found = {(f.feature, f.defect): f.detail for f in examine(find_people(tmp_path, "noxi"))}
    assert found["clip", "pause"] == "10.00 s without rows, 2 chunks"
    assert not {d for _, d in found} & {"wrong_rate", "shifted", "unreadable"}
    path.write_text(head + piece(0.0, 25.0) + piece(20.0, 45.0) + "</stream>\n")
    found = {(f.feature, f.defect): f.detail for f in examine(find_people(tmp_path, "noxi"))}
    assert "from=20.000" in found["clip", "unreadable"]
