"""Folds of classes from streams and label words to the table, by the workflow and by sklearn alone."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix
from stream_trees import EGEMAPS, put, values

from corpora.__main__ import main as corpora

ROOT = Path(__file__).resolve().parent.parent
WORDS = ["noplay", "aimless", "adultseeking", "goaloriented"]  # in the order of the preset
SECONDS = 10
HELD_OUT = ("07", "11")
LABELLED = [("train", "07"), ("train", "11"), ("val", "13")]


def rating(session: str, role: str) -> list[str]:
    """30 words a second, one of three in turn; a second without a word, and a word never used."""
    first = int(session) + (role == "yellow")
    lines = [WORDS[(i // 30 + first) % 3] for i in range(SECONDS * 30)]
    lines[100:130] = [""] * 30
    lines[200 + int(session)] = ""  # no two children are rated alike, to the byte
    return lines


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of a call on a miniature download: two folds over its training sessions."""
    house = tmp_path_factory.mktemp("children at play")
    for split, session in LABELLED:
        for role in ("purple", "yellow"):
            folder = house / f"data/Pinsoro/{split}-cc/{session}"
            lines = rating(session, role)
            x = values(SECONDS * 25, 6, int(session))
            heard = [lines[int(i * 30 / 25)] for i in range(len(x))]
            for k, word in enumerate(WORDS):
                x[:, k] += [3.0 * (h == word) for h in heard]
            put(folder, role, EGEMAPS, x)
            if (session, role) != ("13", "yellow"):  # nobody rated this child
                path = folder / f"{role}.task_engagement.annotation.csv"
                path.write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch, (house / "p.tsv").open("w") as sheet:
        patch.setattr(sys, "stdout", sheet)
        assert corpora(["init", "pinsoro", str(house / "data")]) == 0
    folded = {
        "base": "egemaps_mlp_pinsoro",
        "train": ["pinsoro-cc/train"],
        "evaluate": ["pinsoro-cc/train", "pinsoro-cc/val"],
        "folds": {"of": "pinsoro-cc/train", "by": "session"},
    }
    config = {
        "results": str(house / "results"),
        "sessions": str(house / "p.tsv"),
        "media_root": str(house / "data"),
        "defaults": {
            "features": ["audio_egemaps"],
            "seeds": [1],
            "preset": "demo",
            "training": {"epochs": 20, "batch": 4, "warmup_steps": 5, "learning_rate": 0.003},
        },
        "runs": {"play": folded},
        "tables": {"main": {"runs": ["play"], "bootstrap": 20}},
    }
    (house / "own.yaml").write_text(yaml.safe_dump(config))
    names = ("multimediate", "protocols/pinsoro")
    presets = [str(ROOT / f"presets/{name}.yaml") for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", "--nolock"]
        + ["--configfile", *presets, str(house / "own.yaml")]
        + ["--", str(house / "results/tables/main/ccc.csv")],
        cwd=ROOT, capture_output=True, text=True, timeout=500,
        env={k: v for k, v in os.environ.items() if k not in ("STUB_JOBS", "PYTHONPATH")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return house / "results"


def predicted(results, run, session, role):
    """Words at the ratings' own times, each by the nearest frame of the predictions."""
    with h5py.File(results / f"predictions/{run}/seed-1/pinsoro-cc.h5") as f:
        if session not in f:
            return None
        person = f[f"{session}/{role}"]
        time, index = person["time"][()], person["engagement"][()].astype(int)
        mean = person["probability"][()]
    assert (mean.argmax(1) == index).all()
    at = np.arange(SECONDS * 30) / 30
    nearest = np.abs(time[:, None] - at).argmin(0)
    return np.array(WORDS)[index[nearest]], mean[nearest]


def expected(results, split):
    """(label, prediction) words of a split; a held-out session by the one fold that left it out."""
    truth, found = [], []
    for session in (s for part, s in LABELLED if part == split):
        for role in ("purple",) if session == "13" else ("purple", "yellow"):
            folds = [predicted(results, f"play.fold-{n}", session, role) for n in HELD_OUT]
            if split == "train":
                (words,) = [fold[0] for fold in folds if fold is not None]
                assert folds[HELD_OUT.index(session)] is not None
            else:
                words = np.array(WORDS)[np.mean([fold[1] for fold in folds], 0).argmax(1)]
            lines = np.array(rating(session, role))
            truth += lines[lines != ""].tolist()
            found += words[lines != ""].tolist()
    return truth, found


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_tables_kappa_is_that_of_its_predictions(results, split):
    truth, found = expected(results, split)
    kappa = cohen_kappa_score(truth, found)
    with open(results / "tables/main/ccc.csv", encoding="utf-8", newline="") as f:
        (row,) = csv.DictReader(f)
    column = f"pinsoro-cc/{split}"
    assert float(row[column]) == pytest.approx(kappa, abs=1e-6) and 0.5 < kappa < 1
    assert row[f"{column} metric"] == "kappa"
    record = json.loads((results / "scores/play/seed-1/pinsoro-cc.json").read_text())
    scored = record["splits"][split]
    assert scored["kappa"] == pytest.approx(kappa, abs=1e-12)
    assert scored["accuracy"] == pytest.approx(accuracy_score(truth, found), abs=1e-12)
    assert scored["confusion"] == confusion_matrix(truth, found, labels=WORDS).tolist()
    assert (scored["classes"], scored["n_frames"]) == (WORDS, len(truth))


def test_the_table_names_the_classes(results):
    text = (results / "tables/main/ccc.md").read_text(encoding="utf-8")
    assert (
        text.count("| true class | frames | noplay | aimless | adultseeking | goaloriented |") == 2
    )
    assert "2 folds; each session by the model that did not see it" in text
