"""Rows of a sheet that name one file under two names, and what is no such file."""

import dataclasses

import numpy as np
import pytest

from corpora.__main__ import main
from corpora.duplicates import shared
from corpora.sheet import Participant, write_sheet
from formats.ssi.stream import write_stream

SECONDS = 40


def labels(seed) -> str:
    values = np.random.default_rng(seed).uniform(size=25 * SECONDS)
    return "".join(f"{v:.4f}\n" for v in values)


@pytest.fixture
def corpus(tmp_path):
    """Two sessions of two people: videos, sound, labels, streams of equal size."""
    people = []
    for i, (session, role) in enumerate([("1", "a"), ("1", "b"), ("2", "a"), ("2", "b")]):
        folder = tmp_path / session
        folder.mkdir(exist_ok=True)
        for suffix in ("mp4", "wav"):
            (folder / f"{role}.{suffix}").write_bytes(np.random.default_rng(i).bytes(300_000))
        (folder / f"{role}.csv").write_text(labels(i))
        values = np.random.default_rng(i).normal(size=(1000, 8)).astype(np.float32)
        write_stream(folder / f"{role}.clip.stream", values, 25.0)
        cells = {"video": f"{role}.mp4", "audio": f"{role}.wav", "labels": f"{role}.csv"}
        paths = {c: str(folder / name) for c, name in (cells | {"streams": role}).items()}
        people.append(Participant("d", "train", session, role, **paths, line=i + 2))
    return people


def with_(people, row, **cells):
    return [dataclasses.replace(p, **cells) if p.line == row else p for p in people]


def test_a_proper_sheet_has_nothing_twice(corpus):
    assert shared(corpus) == []


@pytest.mark.parametrize("column", ["video", "audio", "labels", "streams"])
def test_a_fill_down_is_named_with_both_rows(corpus, column):
    people = with_(corpus, 3, **{column: getattr(corpus[0], column)})
    (sentence,) = shared(people)
    assert sentence.startswith(f"rows 2 (d/1 a) and 3 (d/1 b) have the same {column}: both are ")
    assert shared(with_(people, 3, exclude=True)) == []


@pytest.mark.parametrize("column", ["video", "audio", "labels", "streams"])
def test_a_copy_is_named(corpus, column, tmp_path):
    old, new = (getattr(corpus[i], column) for i in (0, 3))
    ending = ".clip.stream~" if column == "streams" else ""
    with open(old + ending, "rb") as one, open(new + ending, "wb") as other:
        other.write(one.read())
    (sentence,) = shared(corpus)
    assert "rows 2 (d/1 a) and 5 (d/2 b)" in sentence and "equal byte by byte" in sentence


def test_people_may_share_a_picture_or_sound_in_separate_parts(corpus):
    one = corpus[0]
    regions = with_(with_(corpus, 2, roi="0,0,8,8"), 3, roi="8,0,8,8", video=one.video)
    assert shared(regions) == []
    assert len(shared(with_(regions, 3, roi="0,0,8,8"))) == 1
    channels = with_(with_(corpus, 2, audio_channel=0), 3, audio_channel=1, audio=one.audio)
    assert shared(channels) == []
    assert len(shared(with_(channels, 3, audio_channel=0))) == 1


@pytest.mark.parametrize("text", ["", "0.5\n0.25\n" * 10, "0.5\n" * 1000, "nan\n" * 80])
def test_what_is_alike_for_many_is_no_copy(corpus, text):
    for p in corpus[:2]:
        for path in (p.labels, p.audio):
            with open(path, "w") as f:
                f.write(text)
    for p in corpus[2:]:  # silence
        with open(p.audio, "wb") as f:
            f.write(b"RIFF and so on" + bytes(100_000))
    assert shared(corpus) == []


def test_check_names_them_and_still_counts(corpus, tmp_path, capsys):
    without_video = [dataclasses.replace(p, video="", audio="") for p in corpus]
    path = tmp_path / "sessions.tsv"
    path.write_text(write_sheet(with_(without_video, 3, labels=corpus[0].labels)))
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr()
    assert "d/train: 2 sessions, 4 participants" in out.out
    assert f"{path} rows 2 (d/1 a) and 3 (d/1 b) have the same labels" in out.err
