"""`snakemake submission`, from a download with every required test session to the zip.

What lies between the streams and the aligned files is made here in one process (a job each would take
minutes); statistics, training, predictions and the zip are real jobs.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from stream_trees import EGEMAPS, put, values

from alignment import align, clock, labels
from corpora.sheet import Participant, write_sheet
from evaluation.layouts import LAYOUTS
from extractors import stream as extractor
from media import probe
from runtime import InputError
from workflow.config import load_config, merge
from workflow.study import Study
from workflow.submission import submission
from workflow.targets import check_targets, named_targets

ROOT = Path(__file__).resolve().parent.parent
ROWS = 125  # 5 s
SHIFTED = ("noxi-j", "148", "expert")  # pictures of another recording, 3.2 s longer
FEATURES = {
    "sound": {"from": "stream", "name": EGEMAPS},
    "picture": {"from": "stream", "name": "clip", "shifted": "missing"},
}
FOLDERS = {f.dataset: name for name, f in LAYOUTS[2026].folders.items() if f.sessions}


def streams(folder: Path, role: str, seed: int, picture: int = ROWS) -> None:
    put(folder, role, EGEMAPS, values(ROWS, 3, seed))
    put(folder, role, "clip", values(picture, 2, seed))


def looked_into(person: Participant, results: Path, root: Path) -> None:
    place = f"{person.dataset}/{person.session}"
    names = ["--dataset", person.dataset, "--session", person.session, "--role", person.role]
    record = results / f"media/{place}/{person.role}.json"
    assert probe.main(["--streams", str(root / person.streams), *names, "--out", str(record)]) == 0


def aligned(person: Participant, results: Path, root: Path) -> None:
    """Features and aligned features of one person."""
    home = results / f"aligned/{person.dataset}/{person.session}"
    prefix = root / person.streams
    for name, settings in FEATURES.items():
        made, other = root / f"{name}.h5", EGEMAPS if name == "picture" else "clip"
        command = ["--stream", f"{prefix}.{settings['name']}.stream", "--out", str(made)]
        command += ["--references", f"{other}={prefix}.{other}.stream", "--feature", name]
        assert extractor.main([*command, "--shifted", "missing"]) == 0
        out = home / person.role / f"{name}.h5"
        command = ["--feature", str(made), "--clock", str(home / "clock.json"), "--out", str(out)]
        assert align.main(command) == 0


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """(folder, config) of two training sessions and everybody whom the challenge of 2026 wants."""
    house = tmp_path_factory.mktemp("download")
    results = house / "results"
    people = [("noxi", "train", s, r) for s in ("001", "003") for r in ("expert", "novice")]
    for folder in LAYOUTS[2026].folders.values():
        people += [(folder.dataset, "test", s, r) for s, r in folder.required()]
    rows = []
    for i, (dataset, split, session, role) in enumerate(people):
        place = f"{dataset}/{split}/{session}"
        streams(house / place, role, i, 205 if (dataset, session, role) == SHIFTED else ROWS)
        csv = f"{place}/{role}.csv" if split == "train" else ""
        rows.append(
            Participant(dataset, split, session, role, streams=f"{place}/{role}", labels=csv)
        )
    # All but one session have streams of the same lengths: what is made of the first is theirs, too.
    # In the order of the stages: what depends on a file must be younger.
    first, record = rows[0], results / "media/noxi/001/expert.json"
    for row in rows:
        path = results / f"media/{row.dataset}/{row.session}/{row.role}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if row is first or (row.dataset, row.session, row.role) == SHIFTED:
            looked_into(row, results, house)
        else:
            names = {"dataset": row.dataset, "session": row.session, "role": row.role}
            path.write_text(json.dumps(json.loads(record.read_text()) | names))
    for dataset, session in dict.fromkeys((row.dataset, row.session) for row in rows):
        records = sorted(map(str, (results / f"media/{dataset}/{session}").iterdir()))
        home = results / f"aligned/{dataset}/{session}"
        home.mkdir(parents=True)
        assert clock.main(["--probe", *records, "--out", str(home / "clock.json")]) == 0
    for row in rows:
        home = results / f"aligned/{row.dataset}/{row.session}/{row.role}"
        home.mkdir()
        if row is first or (row.dataset, row.session) == SHIFTED[:2]:
            aligned(row, results, house)
        else:  # without the sidecars, which say whose these are
            for name in FEATURES:
                shutil.copyfile(results / f"aligned/noxi/001/expert/{name}.h5", home / f"{name}.h5")
        if row.labels:
            (house / row.labels).write_text(
                "".join(f"{v:.3f}\n" for v in np.linspace(0.2, 0.8, ROWS))
            )
            record = results / f"media/noxi/{row.session}/{row.role}.json"
            out = results / f"labels/noxi/{row.session}/{row.role}.h5"
            out.parent.mkdir(parents=True, exist_ok=True)
            command = ["--labels", str(house / row.labels), "--probe", str(record)]
            assert labels.main([*command, "--out", str(out)]) == 0
    (house / "sessions.tsv").write_text(write_sheet(rows))
    config = {
        "results": str(results),
        "sessions": str(house / "sessions.tsv"),
        "media_root": str(house),
        "demo": None,
        "features": FEATURES,
        "defaults": {
            "features": list(FEATURES),
            "evaluate": [f"{dataset}/test" for dataset in FOLDERS],
            "seeds": [1],
            "training": {"epochs": 1, "batch": 8},
            "model": {"name": "mlp"},
        },
        "runs": {
            "da_mamba": None, "da_mamba_no_partner": None, "constant": None,
            "egemaps_mlp": {"features": list(FEATURES)},
        },
        "tables": {"main": {"runs": ["egemaps_mlp"], "bootstrap": 20}},
        "submission": {"year": 2026, "run": "egemaps_mlp", "seed": 1, "clip": True},
    }  # fmt: skip
    (house / "own.yaml").write_text(yaml.safe_dump(config))
    return house, config


def snakemake(config: Path, target: str, *words: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("STUB_JOBS", "PYTHONPATH")}
    call = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", "--nolock"]
    call += ["--configfile", str(config), *words, "--", target]
    return subprocess.run(
        call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_zip_holds_every_required_participant(download):
    house, _ = download
    done = snakemake(house / "own.yaml", "submission")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with zipfile.ZipFile(house / "results/submission/egemaps_mlp.zip") as archive:
        assert archive.testzip() is None
        texts = {name: archive.read(name).decode("ascii") for name in archive.namelist()}
    expected = {
        f"{folder}/{session}/{role}.engagement.prediction.csv"
        for dataset, folder in FOLDERS.items()
        for session, role in LAYOUTS[2026].folders[folder].required()
    }
    assert set(texts) == expected and len(expected) == 99
    for name, text in texts.items():
        lines = text.split("\n")
        assert lines.pop() == "" and len(lines) == ROWS, name  # the shifted one too
        assert all(0 <= float(line) <= 1 and len(line) == 8 for line in lines), name
    # The challenge has published no form for PInSoRo's classes: said, and not in the zip.
    log = (house / "results/logs/submission.log").read_text()
    assert "pinsoro-cc, pinsoro-cr" in log and "noxi-j: 20 files, 2500 lines" in log
    # Another person's prediction comes from other streams; the shifted one's from the sound alone.
    novice, expert = (
        texts[f"noxi-j/148/{r}.engagement.prediction.csv"] for r in ("novice", "expert")
    )
    assert novice != expert


def study(download, **over) -> Study:
    return Study(merge(merge(load_config(), download[1]), over))


def sheet_without(download, tmp_path, change) -> str:
    """The sheet with its lines changed by a function of their cells (None: gone)."""
    header, *rows = (download[0] / "sessions.tsv").read_text().splitlines()
    columns = header.split("\t")
    changed = [change(dict(zip(columns, row.split("\t"), strict=True))) for row in rows]
    path = tmp_path / "s.tsv"
    lines = ["\t".join(c.values()) for c in changed if c is not None]
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def excluded(row: dict) -> dict:
    if (row["dataset"], row["session"], row["role"]) == SHIFTED:
        return row | {"exclude": "yes", "exclude_reason": "clip lasts 8.20 s: another recording"}
    return row


def test_what_would_be_missing_is_named_before_anything_runs(download, tmp_path):
    for change, over, problem, cure in [
        (
            lambda r: None if r["session"] == "131" else r,
            {},
            "lacks noxi-j/131 expert, noxi-j/131 novice: noxi-j of a 2026 submission must hold them",
            "python -m corpora init",
        ),
        (
            excluded,
            {},
            "excludes noxi-j/148 expert (line 99: clip lasts 8.20 s: another recording)",
            "in line 99 of the sheet, empty `exclude` and `exclude_reason`, and set features:"
            " {picture: {shifted: missing}}",
        ),
        (
            lambda r: r | {"split": "val"} if r["dataset"] == "mpiigi" else r,
            {},
            "egemaps_mlp predicts nothing for mpiigroupinteraction, which a 2026 submission must hold",
            "submission.without: [mpiigroupinteraction]",
        ),
        (
            lambda r: r | {"session": "099"} if r["session"] == "065" else r,
            {},
            "lacks noxi-add/065 expert",
            "",
        ),
        (
            lambda r: r,
            {"defaults": {"evaluate": ["noxi/test", "noxi-j/test", "mpiigi/test", "noxi-add/test"]},
             "submission": {"year": 2023}},
            "",
            "",
        ),
        (lambda r: r, {"submission": {"without": ["noxij"]}}, "noxij is no folder of a 2026", "noxi-j"),
        (lambda r: r, {"runs": {"egemaps_mlp": {"task": "classification", "classes": 3}}},
         "which predicts classes: the challenge has published no form", "docs/challenge.md"),
    ]:  # fmt: skip
        s = study(download, sessions=sheet_without(download, tmp_path, change), **over)
        if not problem:
            assert len(submission(s)["files"]) == 1
            continue
        with pytest.raises(InputError) as e:
            check_targets(s, {"submission"})
        assert problem in e.value.problem and cure in e.value.cure, e.value.lines()


def test_who_does_not_belong_into_the_zip_is_named(download, tmp_path):
    more = "mpiigi\ttest\t001\tsubjectPos4" + 11 * "\t" + "\tmpiigi/test/001/subjectPos3"
    path = Path(sheet_without(download, tmp_path, lambda row: row))
    path.write_text(path.read_text() + more + "\n")
    with pytest.raises(InputError, match="001 subjectPos4 .line 105.: mpiigroupinteraction of"):
        submission(study(download, sessions=str(path)))


def test_a_set_left_out_on_purpose(download):
    over = {"submission": {"without": ["noxi-j", "mpiigroupinteraction"]}}
    over["defaults"] = {"evaluate": ["noxi/test", "noxi-add/test"]}
    found = submission(study(download, **over))
    assert [Path(f).name for f in found["files"]] == ["noxi.h5", "noxi-add.h5"]
    assert len(found["records"]) == 32 + 24 + 16 + 12


def test_targets_of_a_command_line():
    words = ["/x/snakemake", "--cores", "2", "--config", "seed=1", "--", "submission", "all"]
    assert named_targets(words) == {"submission", "all"}
    assert named_targets(["/x/snakemake/__main__.py", "-n", "-R", "predict"]) == set()
    assert named_targets(["pytest", "predict"]) == set()


def test_predict_without_a_folder_says_what_it_needs(download):
    done = snakemake(download[0] / "own.yaml", "predict", "-n")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "error: predict needs a folder of new recordings" in said
    assert "--config corpus=FOLDER" in said and "wildcards" not in said
