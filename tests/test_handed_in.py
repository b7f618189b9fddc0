"""A submission whose names are almost right: the message says what lies there instead."""

import zipfile

import pytest

from evaluation.handed_in import Submission, difference, essence
from evaluation.layouts import LAYOUTS
from evaluation.official import score
from runtime import InputError

RIGHT = "noxi-base/002/expert.engagement.prediction.csv"
WRONG = {
    "Noxi-Base/002/expert.engagement.prediction.csv": "folder is spelled Noxi-Base, not noxi-base",
    "noxi-base/002/Expert.engagement.prediction.csv": "file is spelled Expert.",
    "my zip/noxi-base/002/expert.engagement.prediction.csv": "lies in the folder my zip/",
    "noxi-base\\002\\expert.engagement.prediction.csv": "backslashes",
    "noxi-base/2/expert.engagement.prediction.csv": "session is called 2, not 002",
    "noxi-base/002/expert.engagement.annotation.csv": "ends differently from .engagement.prediction",
    "noxi-base/002/expert.prediction.csv": "ends differently",
}


def archive(tmp_path, *names):
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w") as f:
        for name in names:
            f.writestr(name, "0.1\n0.2\n0.3\n")
    return path


def folder(tmp_path, *names):
    for name in names:
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_text("0.1\n0.2\n0.3\n")
    return tmp_path / "s"


@pytest.mark.parametrize("make", [archive, folder])
@pytest.mark.parametrize(("name", "words"), WRONG.items())
def test_what_is_there_instead_is_named(tmp_path, make, name, words):
    submission = Submission(make(tmp_path, name, "noxi-base/006/expert.x"), LAYOUTS[2026])
    with pytest.raises(InputError) as e:
        submission.lines("noxi-base", "002", "expert")
    assert f"lacks {RIGHT}" in e.value.problem and words in e.value.problem
    assert repr(name) in e.value.problem and "FOLDER/SESSION/ROLE.engagement.prediction.csv" in e.value.cure  # fmt: skip


@pytest.mark.parametrize("make", [archive, folder])
def test_a_participant_who_is_not_there_at_all(tmp_path, make):
    submission = Submission(make(tmp_path, RIGHT), LAYOUTS[2026])
    assert submission.lines("noxi-base", "002", "expert") == ["0.1", "0.2", "0.3"]
    with pytest.raises(InputError, match="holds nothing of a similar name"):
        submission.lines("noxi-base", "002", "novice")


def test_names_that_mean_the_same_file():
    assert {essence(name) for name in (RIGHT, *WRONG)} == {("noxi-base", "2", "expert")}
    assert essence("expert.csv") != essence(RIGHT)
    children = "pinsoro-cc/001/purple.task_engagement.engagement.prediction.csv"
    assert essence(children) == ("pinsoro-cc", "1", "purple.task_engagement")
    assert difference(RIGHT.replace("002", "003"), RIGHT).startswith("its session")


def test_files_of_nobody_are_named(tmp_path, caplog):
    truth = tmp_path / "truth/002"
    truth.mkdir(parents=True)
    (truth / "expert.engagement.annotation.csv").write_text("0.1\n0.3\n0.2\n")
    path = archive(
        tmp_path, RIGHT, "noxi-base/002/stranger.engagement.prediction.csv", "readme.txt",
        "noxi-additional/015/expert.engagement.prediction.csv", "__MACOSX/noxi-base/x", "a/.DS_Store",
    )  # fmt: skip
    score(Submission(path, LAYOUTS[2026]), {"noxi-base": tmp_path / "truth"})
    (message,) = [r.message for r in caplog.records if "nobody" in r.message]
    assert message.startswith("2 files belong to nobody with labels: ")
    assert "stranger" in message and "readme.txt" in message
