"""Exactly what is stale runs again: job sets from dry runs over outputs that a stub run made.

The job graph, the fingerprints and Snakemake are the real ones; only the jobs' work is stubbed
(tests/stub/sitecustomize.py), so that the whole matrix takes seconds.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workflow.stages import read_stages, write_stages

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
PEOPLE = [
    ("noxi", "train", "001", ("expert", "novice")),
    ("noxi", "train", "003", ("expert", "novice")),
    ("noxi", "val", "007", ("expert", "novice")),
    ("noxi", "test", "002", ("expert", "novice")),
    ("mpiigi", "val", "008", ("subjectPos1", "subjectPos2", "subjectPos3")),
]
COLUMNS = ("dataset", "split", "session", "role", "video", "audio", "labels")
FEATURES = ("egemaps", "wav2vec2", "clip_face", "flow", "flow_magnitude")
CONFIG = {
    "results": "results",
    "sessions": "sessions.tsv",
    "media_root": None,
    "demo": None,
    "features": {
        "wav2vec2": {"weights": {"random": None, "directory": "weights/wav2vec2"}},
        "clip_face": {"weights": {"random": None, "directory": "weights/clip_face"}},
    },
    "defaults": {
        "evaluate": ["noxi/val", "noxi/test", "mpiigi/val"],
        "train": ["noxi/train"],
        "seeds": [1, 2],
    },
}


def row(dataset, split, session, role):
    stem = f"media/{dataset}/{session}/{role}"
    return (dataset, split, session, role, f"{stem}.mp4", f"{stem}.wav", f"{stem}.csv")


def write_sheet(house: Path, people) -> None:
    lines = ["\t".join(COLUMNS)]
    for dataset, split, session, roles in people:
        for role in roles:
            values = row(dataset, split, session, role)
            lines.append("\t".join(values))
            for path in values[4:]:
                file = house / path
                if not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(f"{path}\n")
    (house / "sessions.tsv").write_text("\n".join(lines) + "\n")


def snakemake(house: Path, *words: str) -> str:
    environment = dict(os.environ, STUB_JOBS="1")
    environment["PYTHONPATH"] = str(ROOT / "tests" / "stub")
    environment.pop("SNAKEMAKE_PROFILE", None)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "own.yaml", "--nocolor", *words],
        cwd=house, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A small study whose outputs all exist."""
    house = tmp_path_factory.mktemp("house") / "house"
    house.mkdir()
    for package in sorted(PACKAGES):
        shutil.copytree(
            ROOT / package, house / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("Snakefile", "config.yaml", "studies.yaml"):
        shutil.copy2(ROOT / name, house / name)
    for name in ("envs", "profiles"):
        shutil.copytree(ROOT / name, house / name)
    (house / "own.yaml").write_text(yaml.safe_dump(CONFIG))
    for feature in ("wav2vec2", "clip_face"):
        (house / "weights" / feature).mkdir(parents=True)
        (house / "weights" / feature / "model.safetensors").write_text("weights\n")
        (house / "weights" / feature / "config.json").write_text("{}\n")
    write_sheet(house, PEOPLE)
    snakemake(house)
    return house


@pytest.fixture
def house(built, tmp_path) -> Path:
    """A fresh copy of the built study, time stamps kept."""
    copy = tmp_path / "house"
    shutil.copytree(built, copy, symlinks=True)
    return copy


SIDE = (
    ".crops.mkv",
    "history.jsonl",
    "ccc.md",
    "ccc.tex",
    "ccc.json",
    "sessions.csv",
    "metrics.csv",
    "similarity.csv",
    "similarity.json",
)


def stale(house: Path, *words: str) -> set[str]:
    """Main outputs (below results/) of the jobs that would run, by Snakemake's own summary."""
    pending = set()
    for line in snakemake(house, "--summary", *words).splitlines():
        cells = line.split("\t")
        if len(cells) >= 5 and cells[0].startswith("results/") and cells[-1] == "update pending":
            pending.add(cells[0].removeprefix("results/"))
    side = {p for p in pending if p.endswith(SIDE) or (p.startswith("qc/") and p.endswith(".png"))}
    for path in pending:
        stem, kind = os.path.splitext(path)
        if kind in (".h5", ".safetensors"):
            side.add(stem + ".json")
    return pending - side


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} not in {path}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def configure(house: Path, change) -> None:
    config = yaml.safe_load((house / "own.yaml").read_text())
    change(config)
    (house / "own.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def participants(people=PEOPLE, sets=None) -> list[tuple[str, str, str]]:
    return [
        (d, s, role)
        for d, split, s, roles in people
        for role in roles
        if sets is None or f"{d}/{split}" in sets
    ]


RUNS = {"da_mamba": (1, 2), "da_mamba_no_partner": (1, 2), "egemaps_mlp": (1, 2), "constant": (1,)}
SEEDS = RUNS | {"averaged": (1, 2), "small": (1, 2)}  # and of a table on request
FIVE = ("da_mamba", "da_mamba_no_partner")


def downstream(runs, datasets=("noxi", "mpiigi"), seeds=None) -> set[str]:
    """Predictions, scores, curves of the runs, and the table."""
    jobs = {"tables/main/ccc.csv"}
    for run in runs:
        for dataset in datasets:
            jobs.add(f"curves/{run}/{dataset}.png")
            for seed in seeds or SEEDS[run]:
                jobs.add(f"predictions/{run}/seed-{seed}/{dataset}.h5")
                jobs.add(f"scores/{run}/seed-{seed}/{dataset}.json")
    return jobs


def trained(runs, seeds=None) -> set[str]:
    models = {f"runs/{r}/seed-{s}/model.safetensors" for r in runs for s in seeds or SEEDS[r]}
    return models | {f"curves/{r}/training.png" for r in runs}


def statistics(runs) -> set[str]:
    return {f"runs/{r}/statistics.h5" for r in runs}


def feature_chain(feature: str, people=None) -> set[str]:
    """A feature of the people, its alignment, their sessions' quality."""
    people = people or participants()
    jobs = {f"features/{d}/{s}/{r}/{feature}.h5" for d, s, r in people}
    jobs |= {f"aligned/{d}/{s}/{r}/{feature}.h5" for d, s, r in people}
    return jobs | quality(people)


def quality(people) -> set[str]:
    return {f"qc/{d}/{s}.json" for d, s, _ in people} | {"qc/qc.tsv"}


def test_nothing_changed_nothing_runs(house):
    assert stale(house) == set()


def test_comments_messages_and_key_order_rerun_nothing(house):
    for path in sorted((house / "extractors").glob("*.py")) + sorted(
        (house / "model").glob("*.py")
    ):
        path.write_text("# a comment\n" + path.read_text() + "\n# another\n")
    for path in sorted((house / "runtime").glob("*.py")):
        path.write_text(path.read_text() + "\nEXTRA = 1\n")
    edit(house / "runtime" / "progress.py", "done: %d", "finished: %d")
    text = yaml.safe_load((house / "config.yaml").read_text())
    reordered = {
        k: dict(reversed(v.items())) if isinstance(v, dict) else v
        for k, v in reversed(text.items())
    }
    reordered["runs"] = text["runs"]
    (house / "config.yaml").write_text(yaml.safe_dump(reordered, sort_keys=False))
    assert stale(house) == set()


def test_threads_batch_and_resources_rerun_nothing(house):
    assert (
        stale(house, "--set-threads", "train=1", "wav2vec2=2", "--set-resources", "train:mem_mb=1")
        == set()
    )


def clip_jobs() -> set[str]:
    return feature_chain("clip_face") | statistics(FIVE) | trained(FIVE) | downstream(FIVE)


def test_clip_precision(house):
    configure(house, lambda c: c["features"]["clip_face"].update(precision="bf16"))
    assert stale(house) == clip_jobs()


def test_clip_weights_file(house):
    path = house / "weights/clip_face/model.safetensors"
    path.write_text("other weights\n")
    assert stale(house) == clip_jobs() | {"weights/clip_face.json"}


def test_clip_model_from_a_hub(house):
    weights = {
        "directory": None,
        "random": None,
        "repository": "somebody/clip",
        "revision": "a" * 40,
    }
    configure(house, lambda c: c["features"]["clip_face"].update(weights=weights))
    assert stale(house) == clip_jobs() | {"weights/clip_face.json"}


def raise_version(house: Path, name: str) -> None:
    """What `python -m workflow.stages raise` does when a stage computes other values."""
    path = house / "workflow/stages.json"
    read_stages.cache_clear()
    stages = dict(read_stages(path))
    stages[name] = dataclasses.replace(stages[name], version=stages[name].version + 1)
    write_stages(stages, path)


def test_other_values_of_clip(house):
    raise_version(house, "extractors.clip_face")
    assert stale(house) == clip_jobs()


def test_code_of_the_same_values_reruns_nothing(house):
    """A renamed variable, a type hint, a new function, a moved one, in modules that every stage imports."""
    atomic = house / "store/atomic.py"
    edit(atomic, "def write_text(path", "def write_text(where")
    atomic.write_text(re.sub(r"\bpath\b", "where", atomic.read_text()))
    edit(house / "store/hdf5.py", "import h5py", "import h5py\n\nANOTHER: int = 3")
    for name in ("training/optim.py", "extractors/clip_face.py", "evaluation/score.py"):
        path = house / name
        path.write_text(path.read_text() + "\n\ndef another_number(x: int) -> int:\n    return x\n")
    assert stale(house) == set()


def test_updated_program_reruns_the_stages_that_compute_other_values(house):
    """All code is newer than the results; one version is raised."""
    for package in sorted(PACKAGES):
        for path in (house / package).rglob("*.py"):
            path.write_text(path.read_text() + "\nUPDATED = True\n")
    assert stale(house) == set()
    raise_version(house, "evaluation.score")
    assert stale(house) == {j for j in downstream(RUNS) if j.startswith(("scores/", "tables/"))}


def test_later_setting_of_its_neutral_value_reruns_nothing(house):
    """A new key of the config with which the stage computes what it computed before."""
    edit(house / "config.yaml", "\nfaces:\n", "\nfaces:\n  sharpen: 0\n")
    schema = house / "workflow/schemas/config.schema.yaml"
    edit(schema, "      margin:", "      sharpen: {type: number}\n      margin:")
    path = house / "workflow/stages.json"
    entries = json.loads(path.read_text())
    entries["extractors.faces"]["added"] = {"sharpen": 0}
    path.write_text(json.dumps(entries))
    assert stale(house) == set()
    edit(house / "config.yaml", "sharpen: 0", "sharpen: 1")
    assert {f"faces/{d}/{s}/{r}.h5" for d, s, r in participants()} <= stale(house)


def test_alignment_of_one_feature(house):
    configure(house, lambda c: c["features"].update(flow={"align": {"method": "hold"}}))
    extracted = {f"features/{d}/{s}/{r}/flow.h5" for d, s, r in participants()}
    expected = feature_chain("flow") - extracted
    assert stale(house) == expected | statistics(FIVE) | trained(FIVE) | downstream(FIVE)


def test_channel_of_a_persons_sound(house):
    lines = (house / "sessions.tsv").read_text().splitlines()
    lines = [line + ("\t1" if "\t002\texpert\t" in line else "\t") for line in lines]
    lines[0] = lines[0].rstrip("\t") + "\taudio_channel"
    (house / "sessions.tsv").write_text("\n".join(lines) + "\n")
    person = [("noxi", "002", "expert")]
    expected = feature_chain("egemaps", person) | feature_chain("wav2vec2", person)
    assert expected | {"media/noxi/002/expert.json"} <= stale(house)
    others = [p for p in participants() if p not in person]
    assert not {f"features/{d}/{s}/{r}/egemaps.h5" for d, s, r in others} & stale(house)


def test_face_settings(house):
    configure(house, lambda c: c.update(faces={"margin": 1.8}))
    expected = {f"faces/{d}/{s}/{r}.h5" for d, s, r in participants()}
    for feature in ("clip_face", "flow", "flow_magnitude"):
        expected |= feature_chain(feature)
    assert stale(house) == expected | statistics(FIVE) | trained(FIVE) | downstream(FIVE)


def test_published_rows(house):
    configure(house, lambda c: c.update(tables={"main": {"reported": True}}))
    assert stale(house) == {"tables/main/ccc.csv"}
    snakemake(house)
    edit(house / "evaluation/reported.yaml", '"0.', '"0.1')
    assert stale(house) == {"tables/main/ccc.csv"}


def test_bootstrap_of_a_table(house):
    configure(house, lambda c: c.update(tables={"main": {"bootstrap": 50}}))
    assert stale(house) == {"tables/main/ccc.csv"}


def test_label_of_a_test_session(house):
    (house / "media/noxi/002/expert.csv").write_text("0.5\n")
    scored = {j for j in downstream(RUNS, ["noxi"]) if not j.startswith("predictions/")}
    assert stale(house) == {"labels/noxi/002/expert.h5", "qc/noxi/002.json", "qc/qc.tsv"} | scored


def test_label_of_a_training_session(house):
    (house / "media/noxi/001/novice.csv").write_text("0.5\n")
    expected = {"labels/noxi/001/novice.h5", "qc/noxi/001.json", "qc/qc.tsv"}
    assert stale(house) == expected | statistics(RUNS) | trained(RUNS) | downstream(RUNS)


def new_participants(house, dataset, split, session, roles):
    people = [*PEOPLE, (dataset, split, session, roles)]
    write_sheet(house, people)
    return [(dataset, session, role) for role in roles]


def jobs_of_people(people, labels=True) -> set[str]:
    jobs = set()
    for d, s, r in people:
        jobs |= {f"media/{d}/{s}/{r}.json", f"faces/{d}/{s}/{r}.h5", f"aligned/{d}/{s}/clock.json"}
        if labels:
            jobs.add(f"labels/{d}/{s}/{r}.h5")
    for feature in FEATURES:
        jobs |= feature_chain(feature, people)
    return jobs


def test_new_test_session(house):
    people = new_participants(house, "noxi", "test", "012", ("expert", "novice"))
    assert stale(house) == jobs_of_people(people) | downstream(RUNS, ["noxi"])


def test_new_training_session(house):
    people = new_participants(house, "noxi", "train", "013", ("expert", "novice"))
    expected = jobs_of_people(people) | statistics(RUNS) | trained(RUNS) | downstream(RUNS)
    assert stale(house) == expected


def test_new_seed(house):
    configure(house, lambda c: c.setdefault("runs", {}).update(da_mamba={"seeds": [1, 2, 3]}))
    expected = trained(["da_mamba"], [3]) | downstream(["da_mamba"], seeds=[3])
    assert stale(house) == expected


def test_new_run(house):
    def change(config):
        config["runs"] = {
            "egemaps_deep": {"features": ["egemaps"], "model": {"name": "mlp"}, "seeds": [7]}
        }
        config["tables"] = {"main": {"runs": [*RUNS, "egemaps_deep"]}}

    configure(house, change)
    expected = statistics(["egemaps_deep"]) | trained(["egemaps_deep"], [7])
    assert stale(house) == expected | downstream(["egemaps_deep"], seeds=[7])


def test_new_feature_leaves_trained_runs_alone(house):
    configure(house, lambda c: c["features"].update(egemaps_lld={"enabled": True}))
    assert stale(house) == feature_chain("egemaps_lld")


def test_training_setting_of_one_run(house):
    configure(
        house,
        lambda c: c.setdefault("runs", {}).update(da_mamba={"training": {"learning_rate": 1e-3}}),
    )
    assert stale(house) == trained(["da_mamba"]) | downstream(["da_mamba"])


def test_excluded_participant(house):
    text = (house / "sessions.tsv").read_text().splitlines()
    lines = [text[0] + "\texclude\texclude_reason"]
    for line in text[1:]:
        out = line.split("\t")[2:4] == ["002", "novice"]
        lines.append(line + ("\tyes\tcamera fell" if out else "\t\t"))
    (house / "sessions.tsv").write_text("\n".join(lines) + "\n")
    expected = {"aligned/noxi/002/clock.json"}
    expected |= {f"aligned/noxi/002/expert/{f}.h5" for f in FEATURES}
    expected |= quality([("noxi", "002", "expert")])
    assert stale(house) == expected | downstream(RUNS, ["noxi"])


def test_other_values_of_one_network_train_its_runs_only(house):
    raise_version(house, "model.mlp")
    assert stale(house) == trained(["egemaps_mlp"]) | downstream(["egemaps_mlp"])


def test_setting_of_prediction_trains_nothing(house):
    configure(house, lambda c: c.update(runs={"da_mamba": {"prediction": {"merge": "mean"}}}))
    assert stale(house) == downstream(["da_mamba"])


def study_of_prediction(config):
    config["runs"] = {
        "averaged": {"weights_of": "da_mamba", "prediction": {"merge": "mean"}},
        "small": {"base": "egemaps_mlp", "model": {"hidden": 8}},
    }
    runs = ["da_mamba", "averaged", "small"]
    config["tables"] = {
        "asked": {"on_request": True, "figures": ["training", "similarity"], "runs": runs}
    }


def of_study(runs) -> set[str]:
    """Jobs of runs that only the table on request needs: no curves of predictions."""
    jobs = {job for job in downstream(runs) if not job.startswith("curves/")}
    return jobs - {"tables/main/ccc.csv"} | {"tables/asked/ccc.csv"}


def test_table_on_request_is_no_part_of_all_and_shares_weights(house):
    configure(house, study_of_prediction)
    assert stale(house) == set()
    picture = {"curves/da_mamba/similarity.png"}  # one for both runs with these weights
    new = statistics(["small"]) | trained(["small"]) | of_study(["averaged", "small"]) | picture
    assert stale(house, "asked") == new
    snakemake(house, "asked")
    assert stale(house, "asked") == set() and stale(house) == set()

    configure(house, lambda c: c["runs"]["averaged"]["prediction"].update(absent_rate=0.2))
    assert stale(house, "asked") == of_study(["averaged"])
    assert stale(house) == set()

    configure(
        house,
        lambda c: c["runs"].update(da_mamba={"training": {"learning_rate": 1e-3}}),
    )
    both = trained(["da_mamba"]) | of_study(["da_mamba", "averaged"]) | picture
    assert stale(house, "asked") == both
    assert stale(house) == trained(["da_mamba"]) | downstream(["da_mamba"])
