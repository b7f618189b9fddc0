"""Config and sheet checked against each other; command-line names of sessions."""

from types import SimpleNamespace

import pytest

from runtime import InputError
from workflow.config import load_config, merge
from workflow.study import Study, options

ROWS = [
    ("noxi", "train", "001", "expert", "yes"),
    ("noxi", "train", "001", "novice", "yes"),
    ("noxi", "val", "007", "expert", "yes"),
    ("noxi", "val", "007", "novice", ""),
    ("mpiigi", "test", "001", "subjectPos1", ""),
    ("mpiigi", "test", "001", "subjectPos2", "yes"),
]


@pytest.fixture
def sheet(tmp_path):
    lines = ["dataset\tsplit\tsession\trole\tvideo\taudio\tlabels\texclude\texclude_reason"]
    for dataset, split, session, role, labelled in ROWS:
        stem = f"{dataset}/{session}/{role}"
        labels = f"{stem}.csv" if labelled else ""
        lines.append(f"{dataset}\t{split}\t{session}\t{role}\t{stem}.mp4\t\t{labels}\t\t")
        for name in filter(None, (f"{stem}.mp4", labels)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
    path = tmp_path / "sessions.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def study(sheet, **over) -> Study:
    base = {
        "sessions": str(sheet),
        "media_root": None,
        "demo": None,
        "defaults": {"evaluate": ["noxi/val", "mpiigi/test", "noxi/test"]},
    }
    return Study(merge(merge(load_config(), base), over))


def test_specs_and_sets(sheet):
    s = study(sheet)
    assert s.set_names() == ["noxi/train", "noxi/val", "mpiigi/test"]
    assert s.sessions(["noxi/train"]) == [("noxi", "001")]
    assert s.spec(("noxi", "001")) == "noxi/001:expert,novice@train"
    assert s.labelled_specs(["noxi/val", "mpiigi/test"]) == [
        "noxi/007:expert@val",
        "mpiigi/001:subjectPos2@test",
    ]
    assert s.runs["da_mamba"].evaluate == ("noxi/val", "mpiigi/test")  # noxi/test has no session
    assert s.columns(s.tables["main"]) == ["noxi/val", "mpiigi/test"]


def test_excluded_people_leave_every_stage_and_are_counted(sheet):
    text = sheet.read_text().splitlines()
    text[4] += "yes\tcamera fell"
    text[4] = text[4].replace("\t\tyes", "\tyes")
    sheet.write_text("\n".join(text) + "\n")
    s = study(sheet)
    assert s.spec(("noxi", "007")) == "noxi/007:expert@val"
    assert s.excluded_counts("noxi") == ["val=1"]
    assert not any("007/novice" in path for path in s.aligned(s.by_session, s.features))


@pytest.mark.parametrize(
    ("over", "problem"),
    [
        (
            {"defaults": {"train": ["noxi/test"]}},
            "trains on noxi/test, which the sheet does not have",
        ),
        ({"defaults": {"evaluate": ["noxi/train"]}}, "trained and evaluated on noxi/train"),
        ({"defaults": {"features": ["egemaps_lld"]}}, "egemaps_lld, which is not enabled"),
        ({"tables": {"main": {"runs": ["da_mambo"]}}}, "da_mambo, which is no run"),
        ({"features": {"clip_face": {"weights": {"repository": "a/b"}}}}, "repository and random"),
        (
            {"features": {"clip_face": {"weights": {"random": None, "directory": "nowhere"}}}},
            "holds no .safetensors",
        ),
        (
            {
                "defaults": {"validate": ["noxi/test"]},
                "runs": {"da_mamba": {"training": {"selection": "best_val"}}},
            },
            "best_val",
        ),
    ],
)
def test_what_does_not_fit_is_said(sheet, over, problem):
    with pytest.raises(InputError) as e:
        study(sheet, **over)
    assert problem in e.value.problem
    assert e.value.cure


def test_training_fingerprint_names_settings_and_sessions(sheet):
    s = study(sheet)
    text = s.training_fingerprint("da_mamba")
    assert text.startswith("code=")
    assert "train=[noxi/001:expert,novice@train]" in text
    assert "model.name=da_mamba" in text
    assert text != study(sheet, defaults={"training": {"epochs": 3}}).training_fingerprint(
        "da_mamba"
    )


def test_only_numbers_reach_an_extractor(sheet):
    s = study(sheet)
    assert options(s.feature_settings("wav2vec2")) == (
        "--chunk-s=30.0 --context-s=1.0 --dtype=float16 --layer=-1 --precision=fp32"
    )
    assert s.participant(SimpleNamespace(dataset="noxi", session="001", role="expert")).labels
