"""Roles with dots: whose file is `Äxp.ert-1.audio.egemapsv2.stream`?"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from stream_trees import EGEMAPS, label, put, values
from test_digest import SNAKEMAKE

from corpora import challenge, mpiigi
from corpora.sheet import read_sheet
from corpora.streams import find_people
from evaluation.official import truth_files
from extractors.stream import extract, main
from formats.roles import role_of, roles_in
from formats.stream_files import split_name
from runtime import InputError
from store.features import read_features
from workflow.digest import digest

DOTTED = "Äxp.ert-1"


@pytest.mark.parametrize(
    ("name", "roles", "expected"),
    [
        ("a.clip.stream", ["a", "a.b"], "a"),
        ("a.b.clip.stream", ["a", "a.b"], "a.b"),
        ("a.b.clip.stream", ["a.b", "a"], "a.b"),
        ("ab.clip.stream", ["a"], None),
        ("a", ["a"], None),
    ],
)
def test_the_longest_role_that_begins_a_name(name, roles, expected):
    assert role_of(name, roles) == expected


def test_known_endings_name_the_roles():
    names = ["a.b.video.MP4", "c.mp4", "a.b.age.annotation.csv", ".mp4", "d.audio.wav", "c.wav"]
    assert roles_in(names, (".video.mp4", ".mp4", ".audio.wav", ".wav")) == ["a.b", "c", "d"]


@pytest.mark.parametrize(
    ("name", "roles", "expected"),
    [
        ("expert.audio.egemapsv2.stream", (), ("expert", "audio.egemapsv2")),
        ("expert.video.clip.stream", (), ("expert", "clip")),
        (f"{DOTTED}.audio.egemapsv2.stream", (), (DOTTED, "audio.egemapsv2")),
        (f"{DOTTED}.video.clip.stream", (), (DOTTED, "clip")),
        (f"{DOTTED}.audio.mine.stream", (DOTTED,), (DOTTED, "audio.mine")),
        ("expert.audio.mine.stream", (), ("expert", "audio.mine")),
    ],
)
def test_role_and_feature_of_a_stream(name, roles, expected):
    assert split_name(name, roles) == expected


@pytest.mark.parametrize("corpus", ["noxi", "mpiigi"])
def test_a_sheet_is_made_with_the_whole_role(tmp_path, corpus):
    session = tmp_path / ("train/001" if corpus == "noxi" else "mpii/MultiMediate25/train/001")
    role = DOTTED if corpus == "noxi" else "subjectPos1.b"
    for name in (EGEMAPS, "audio.mine"):
        put(session, role, name, values(100, 3))
        put(session, "subjectPos2", name, values(100, 3))
    label(session, role, 100)
    found = {p.role: p for p in find_people(tmp_path, corpus)}
    assert sorted(found) == sorted([role, "subjectPos2"])
    assert sorted(found[role].streams) == sorted(found["subjectPos2"].streams)
    assert found[role].labels.name == f"{role}.engagement.annotation.csv"
    rows = challenge.find(tmp_path, corpus=corpus)
    assert [r.role for r in rows] == sorted([role, "subjectPos2"])
    assert all(r.streams.endswith(f"001/{r.role}") for r in rows)


def test_media_beside_the_streams_do_not_take_their_names(tmp_path):
    """MM'24: subjectPos1.audio.wav beside subjectPos1.audio.egemapsv2.stream."""
    session = tmp_path / "mpii/MultiMediate25/train/001"
    put(session, "subjectPos1", EGEMAPS, values(100, 3))
    (session / "subjectPos1.audio.wav").write_bytes(b"x")
    (session / "subjectPos1.video.mp4").write_bytes(b"x")
    (person,) = find_people(tmp_path, "mpiigi")
    assert person.role == "subjectPos1" and list(person.streams) == [EGEMAPS]


def test_the_same_feature_whatever_the_role(tmp_path):
    x = values(200, 3)
    settings = []
    for role in (DOTTED, "novice"):
        path = put(tmp_path, role, "audio.mine", x)
        out = tmp_path / f"{role}.h5"
        words = ["--stream", path, "--out", out, "--feature", "mine", "--role", role]
        assert main([str(w) for w in words]) == 0
        features = read_features(out)
        np.testing.assert_array_equal(features.values, x)
        settings.append((features.attributes["model_id"], features.attributes["settings"]))
    assert settings[0] == settings[1]
    assert json.loads(settings[0][1])["name"] == "audio.mine"
    # Without the role a known stream is told by its ending.
    path = put(tmp_path, DOTTED, "video.clip", x)
    extract(str(path), str(tmp_path / "c.h5"), "clip", {})
    assert read_features(tmp_path / "c.h5").attributes["model_id"] == "precomputed stream clip"


def test_streams_that_begin_with_anothers_are_refused(tmp_path):
    for role in ("a", "a.b"):
        put(tmp_path / "1", role, "clip", values(100, 3))
    sheet = tmp_path / "s.tsv"
    rows = "".join(f"d\ttest\t1\t{role}\t1/{role}\n" for role in ("a", "a.b"))
    sheet.write_text("dataset\tsplit\tsession\trole\tstreams\n" + rows)
    with pytest.raises(InputError, match=r"row 3, column 'streams'.*row 2 and a dot"):
        read_sheet(sheet)
    rows = "".join(f"d\ttest\t1\t{role}\t1/{role}\n" for role in ("a", "ab"))
    put(tmp_path / "1", "ab", "clip", values(100, 3))
    sheet.write_text("dataset\tsplit\tsession\trole\tstreams\n" + rows)
    assert [p.role for p in read_sheet(sheet)] == ["a", "ab"]


def test_truth_of_the_official_scorer_and_the_digest(tmp_path):
    label(tmp_path / "001", DOTTED, 3)
    ((session, role, _),) = truth_files(tmp_path, "engagement.annotation.csv")
    assert (session, role) == ("001", DOTTED)
    people = [
        SimpleNamespace(dataset="noxi", session="001", role=role, line=at)
        for at, role in enumerate(("a", "a.b"), 2)
    ]
    study = SimpleNamespace(config={"sessions": "s.tsv"}, participants=people)
    log = tmp_path / "noxi.001.a.b.clip.log"
    log.write_text("command\n")
    (tmp_path / "snakemake.log").write_text(SNAKEMAKE.format(log=log))
    assert "s.tsv, line 3" in digest(study, str(tmp_path / "snakemake.log"))


def test_mpiigi_media_keep_dots(tmp_path):
    session = tmp_path / "mpii/MultiMediate25/train/originalAudioVideo-train/001"
    session.mkdir(parents=True)
    for name in ("subjectPos1.b.mp4", "subjectPos1.b.wav"):
        (session / name).write_bytes(b"x")
    assert [r.role for r in mpiigi.find(tmp_path)] == ["subjectPos1.b"]
