"""`snakemake predict`: a trained run on new recordings, from raw media to engagement per frame."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from media_files import tone, write_video, write_wav

from alignment import align, clock, labels
from evaluation.predictions import PredictionFile
from extractors import run as extractors
from media import probe
from model.checkpoint import load_tensors, save_tensors
from runtime import InputError
from training import statistics, train
from workflow.application import Application
from workflow.config import check_config, load_config, merge

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 8
RUNS = {
    "egemaps_mlp": {"features": ["egemaps"], "model": {"name": "mlp"}, "seeds": [1, 2]},
    "smooth": {"weights_of": "egemaps_mlp", "prediction": {"smooth_s": 1.0}},
    "clipped": {"base": "child", "prediction": {"clip": True}},
    "child": {"base": "egemaps_mlp", "prediction": {"smooth_s": 0.5}},
    "both": {"ensemble_of": "egemaps_mlp", "ensemble": "seeds"},
    "two": {"ensemble_of": ["egemaps_mlp", "smooth"]},
    "folded": {"base": "egemaps_mlp", "folds": {"of": "noxi/train", "by": "session"}},
    "unlike": {"ensemble_of": ["egemaps_mlp", "folded"]},
    "nested": {"ensemble_of": ["both", "two"]},
}


def voice(seconds, seed):
    """A tone whose loudness comes and goes, with noise."""
    t = np.arange(round(seconds * 16000)) / 16000
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(t))
    return tone(seconds) * (0.2 + 0.8 * np.sin(t + seed) ** 2) + noise


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A trained run of eGeMAPS and an MLP, and a folder of two new recordings."""
    house = tmp_path_factory.mktemp("new people")
    results, home = house / "results", house / "results/aligned/noxi/001"
    for place in (results / "media/noxi/001", home / "expert", results / "labels/noxi/001"):
        place.mkdir(parents=True)
    video = write_video(house / "t.mp4", frames=25 * SECONDS)
    sound = write_wav(house / "t.wav", voice(SECONDS, 1))
    (house / "t.csv").write_text("".join(f"{0.5 + 0.4 * np.sin(k / 25):.4f}\n" for k in range(200)))
    record, axis = results / "media/noxi/001/expert.json", home / "clock.json"
    names = ["--dataset", "noxi", "--session", "001", "--role", "expert"]
    media = ["--video", str(video or house / "t.mp4"), "--audio", str(sound)]
    feature, aligned = house / "f.h5", home / "expert/egemaps.h5"
    label = results / "labels/noxi/001/expert.h5"
    runs = results / "runs/egemaps_mlp"
    for seed in (1, 2):
        (runs / f"seed-{seed}").mkdir(parents=True)
    settings = {"preset": "demo", "features": ["egemaps"], "model": {"name": "mlp"}}
    settings["training"] = {"epochs": 2, "batch": 2}
    data = ["--results", str(results)]
    for stage, words in [
        (probe, [*media, *names, "--out", record]),
        (clock, ["--probe", record, "--out", axis]),
        (extractors, ["egemaps", "--audio", sound, "--out", feature]),
        (align, ["--feature", feature, "--clock", axis, "--out", aligned]),
        (labels, ["--labels", house / "t.csv", "--probe", record, "--out", label]),
        (statistics, ["--features", "egemaps", "--frame-rate-hz", "25", "--sessions",
                      "noxi/001:expert@train", *data, "--out", house / "s.h5"]),
        *((train, ["--settings", json.dumps(settings), "--train", "noxi/001:expert@train", *data,
                   "--statistics", house / "s.h5", "--run", "egemaps_mlp", "--seed", seed,
                   "--history", house / "h.jsonl", "--out", runs / f"seed-{seed}/model.safetensors"])
          for seed in (1, 2)),
    ]:  # fmt: skip
        assert stage.main([str(w) for w in words]) == 0, stage
    talks = house / "my talks/Müller & Söhne"
    talks.mkdir(parents=True)
    for i, role in enumerate(("Anna Ü", "ben")):
        write_video(talks / f"{role}.mp4", frames=150)
        write_wav(talks / f"{role}.wav", voice(6, i))
    config = {
        "results": str(results),
        "sessions": str(house / "none.tsv"),
        "demo": None,
        "predict": {"run": "egemaps_mlp", "seed": 1},
        "runs": RUNS,
    }
    (house / "own.yaml").write_text(yaml.safe_dump(config))
    return house, config


def test_from_raw_media_to_engagement_per_frame(house):
    """The mean of two seeds, of a folder whose names the job graph has to spell otherwise."""
    house, _ = house
    environment = {k: v for k, v in os.environ.items() if k not in ("STUB_JOBS", "PYTHONPATH")}
    call = [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", "--nolock"]
    call += ["predict", "--configfile", str(house / "own.yaml")]
    call += ["--config", f"corpus={house / 'my talks'}", "predict={run: both, seed: 0}"]

    def predicted():
        return subprocess.run(
            call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
        )

    # A recording that cannot be read is named, and harms its own session alone.
    broken = house / "my talks/broken"
    broken.mkdir()
    (broken / "eve.mp4").write_bytes(b"no movie")
    write_wav(broken / "eve.wav", voice(6, 2))
    done = predicted()
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"to go on without: take broken/eve out of {house / 'my talks'}" in said, said[-3000:]
    place = house / "results/applied/my_talks"
    assert len(list(place.glob("engagement/*/*/*.csv"))) == 2
    shutil.rmtree(broken)
    next(place.glob("engagement/*/*/ben.engagement.csv")).unlink()
    done = predicted()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"engagement  {place}/engagement/my_talks/*/*.engagement.csv" in done.stdout
    assert "training" not in done.stderr
    files = [place / f"predictions/egemaps_mlp.seed-{seed}/Müller___Söhne.h5" for seed in (1, 2)]
    for role in ("Anna_Ü", "ben"):
        path = place / f"engagement/my_talks/Müller___Söhne/{role}.engagement.csv"
        with open(path, encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f))
        assert len(rows) == 150  # 6 s at 25 Hz
        np.testing.assert_allclose([float(r["time_s"]) for r in rows], np.arange(150) / 25)
        values = np.array([float(r["engagement"]) for r in rows])
        assert np.isfinite(values).all() and values.std() > 0
        of = []
        for file in files:
            with PredictionFile(file) as f:
                of.append(f.read("Müller___Söhne", role).values)
        assert np.abs(of[0] - of[1]).max() > 1e-3
        np.testing.assert_allclose(values, np.mean(of, axis=0), atol=1e-6)
    assert not (place / "faces").exists()  # the run reads sound only


def applied(house, **over):
    config = merge(load_config(), house[1] | {"corpus": str(house[0] / "my talks")})
    return Application(check_config(merge(config, over), typed_in=over))


def test_the_people_of_the_folder_are_the_study(house):
    s = applied(house)
    assert [(p.session, p.role, p.labels) for p in s.participants] == [
        ("Müller___Söhne", "Anna_Ü", ""), ("Müller___Söhne", "ben", ""),
    ]  # fmt: skip
    assert list(s.features) == ["egemaps"]
    assert s.spec(("my_talks", "Müller___Söhne")) == "my_talks/Müller___Söhne:Anna_Ü,ben@test"


@pytest.fixture
def copies(house):
    """Models under the names of other runs; without the sidecar that says whose they are."""
    runs = house[0] / "results/runs"
    made = [f"{run}/seed-1" for run in ("child", "clipped", "folded.fold-1", "folded.fold-2")]
    for place in made:
        (runs / place).mkdir(parents=True)
        shutil.copy(runs / "egemaps_mlp/seed-1/model.safetensors", runs / place)
    yield runs
    for place in made:
        shutil.rmtree((runs / place).parent)


def test_a_run_predicts_with_its_own_settings_and_all_its_models(house, copies):
    """model files and (smooth_s, clip) of each, by the config's base, weights_of and ensemble_of."""
    own, child = "egemaps_mlp/seed-1", "child/seed-1"
    for run, seed, expected in [
        ("egemaps_mlp", 1, [(own, 0, False)]),
        ("egemaps_mlp", "2", [("egemaps_mlp/seed-2", 0, False)]),  # --config gives text
        ("smooth", 1, [(own, 1.0, False)]),
        ("child", 1, [(child, 0.5, False)]),
        ("clipped", 1, [("clipped/seed-1", 0.5, True)]),
        ("both", 0, [(own, 0, False), ("egemaps_mlp/seed-2", 0, False)]),
        ("two", 1, [(own, 0, False), (own, 1.0, False)]),
        ("folded", 1, [(f"folded.fold-{i}/seed-1", 0, False) for i in (1, 2)]),
    ]:
        s = applied(house, predict={"run": run, "seed": seed})
        found = [
            (
                str(Path(m.path).parent.relative_to(copies)),
                m.prediction["smooth_s"],
                m.prediction["clip"],
            )
            for m in s.models.values()
        ]
        assert found == expected
        assert len(set(s.prediction_files("x"))) == len(expected)
    for run, seed, problem in [
        ("both", 1, "predict.seed is 1, but both is the mean of all seeds"),
        ("nested", 1, "nested is an ensemble of ensembles .both"),
        ("unlike", 1, "unlike numbers of models .egemaps_mlp: 1, folded: 2"),
        ("folded", 7, "folded/seed-7/model.safetensors does not exist"),
        ("egemaps", 1, "predict.run names egemaps, which is no run"),
    ]:
        with pytest.raises(InputError, match=problem):
            applied(house, predict={"run": run, "seed": seed})


def test_classes_need_their_names(house):
    path = house[0] / "results/runs/words/seed-1/model.safetensors"
    tensors, metadata = load_tensors(house[0] / "results/runs/egemaps_mlp/seed-1/model.safetensors")
    path.parent.mkdir(parents=True)
    settings = metadata["settings"] | {"classes": 2}
    save_tensors(path, tensors, metadata | {"settings": settings})
    asked = {"predict": {"run": "words", "seed": 1}, "runs": {"words": {}}}
    with pytest.raises(InputError, match="predicts 2 classes, labels.classes names 0"):
        applied(house, **asked)
    s = applied(house, **asked, labels={"rate_hz": 30, "classes": ["no play", "play"]})
    words = shlex.split(s.export_options("s", "r"))
    assert words[:3] == ["--classes", "no play", "play"] and "--only=s/r" in words
    assert words[-1] == "--rate-hz=30"


def test_other_settings_than_those_of_the_training_are_refused_before_anything_runs(house):
    """Those of the feature, of its alignment, and of the faces below it."""
    applied(house)
    for change, said, cure in [
        ({"mode": "exact"}, "features.egemaps.mode is exact instead of streaming", "mode: streaming"),
        ({"dtype": "float16"}, "dtype is float16 instead of float32", "dtype: float32"),
        ({"align": {"method": "hold"}}, "align.method is hold instead of linear", "method: linear"),
    ]:  # fmt: skip
        with pytest.raises(InputError) as e:
            applied(house, features={"egemaps": change})
        assert said in e.value.problem and "model.safetensors was trained on" in e.value.problem
        assert f"{{egemaps: {{{cure}" in e.value.cure.replace("align: {", "")
    made = {"faces": {"margin": 2.0, "version": 0}, "grid": 4, "align": {"method": "linear"}}
    path = house[0] / "results/runs/seen/seed-1/model.safetensors"
    tensors, metadata = load_tensors(house[0] / "results/runs/egemaps_mlp/seed-1/model.safetensors")
    settings = metadata["settings"] | {"features": ["flow"]}
    path.parent.mkdir(parents=True)
    identity = {"extractor": "extractors.flow", "settings": made}
    save_tensors(path, tensors, metadata | {"settings": settings, "features": {"flow": identity}})
    with pytest.raises(InputError) as e:
        applied(house, predict={"run": "seen", "seed": 1}, runs={"seen": {}})
    assert "faces.margin is 1.6 instead of 2.0" in e.value.problem
    assert "the version of the face tracking of flow is 1 instead of 0" in e.value.problem
    assert "grid" not in e.value.problem and "set `faces: {margin: 2.0}`" in e.value.cure


def test_features_that_cannot_be_extracted_are_refused_by_name(house):
    path = house[0] / "results/runs/challenge/seed-1/model.safetensors"
    tensors, metadata = load_tensors(house[0] / "results/runs/egemaps_mlp/seed-1/model.safetensors")
    settings = metadata["settings"] | {"features": ["egemaps", "openface2", "openpose"]}
    stream = {"extractor": "extractors.stream", "model_id": "x", "model_revision": "", "dims": 3}
    ours = metadata["features"]["egemaps"]
    asked = {"predict": {"run": "challenge", "seed": 1}}
    for made_by, named in [
        ({"egemaps": ours, "openface2": stream, "openpose": stream}, "openface2, openpose"),
        ({"egemaps": stream, "openface2": stream, "openpose": stream}, "egemaps, openface2"),
        ({}, "openface2, openpose"),  # a file of an earlier version
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, tensors, metadata | {"settings": settings, "features": made_by})
        with pytest.raises(InputError) as e:
            applied(house, **asked)
        assert f"run challenge reads {named}" in e.value.problem
        assert "egemaps, egemaps_lld, wav2vec2, clip_face" in e.value.cure


def test_what_is_not_there_is_named(house, tmp_path):
    with pytest.raises(InputError, match="not trained yet"):
        applied(house, predict={"run": "dat", "seed": 1}, runs={"dat": {}})
    with pytest.raises(InputError, match="is not a folder"):
        applied(house, corpus=str(tmp_path / "nowhere"))
    for kind, problem in [
        ("empty", "holds no <session>"),
        ("sound", "holds sound files only .1, the"),
    ]:
        (tmp_path / kind / "s").mkdir(parents=True)
        write_wav(tmp_path / "sound/s/r.wav", tone(1)) if kind == "sound" else None
        with pytest.raises(InputError, match=problem):
            applied(house, corpus=str(tmp_path / kind))
    for place, problem in [
        ("flat", "holds r.mp4 itself"),
        ("odd{1}/s", "holds a brace"),
        ("c/s{", "s{/r.mp4"),
    ]:
        (tmp_path / place).mkdir(parents=True)
        write_video(tmp_path / place / "r.mp4", frames=5)
        with pytest.raises(InputError, match=problem):
            applied(house, corpus=str(tmp_path / place.split("/")[0]))
    (tmp_path / "a/s").mkdir(parents=True)
    write_video(tmp_path / "a/s/r.mp4", frames=5)
    with pytest.raises(InputError, match="no video has sound"):
        applied(house, corpus=str(tmp_path / "a"))
    broken = house[0] / "results/runs/broken/seed-1/model.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no")
    with pytest.raises(InputError, match="is not a model file"):
        applied(house, predict={"run": "broken", "seed": 1})


def test_another_folder_of_the_same_name_is_refused(house, tmp_path):
    """a/day1, then b/day1: their results would lie in one place."""
    _, config = house
    for place in ("a", "b"):
        (tmp_path / place / "day1/s").mkdir(parents=True)
        write_video(tmp_path / place / "day1/s/r.mp4", frames=150)
        write_wav(tmp_path / place / "day1/s/r.wav", voice(6, 1))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/runs").symlink_to(Path(config["results"]) / "runs")

    def applied(place):
        over = {**config, "results": str(tmp_path / "results"), "corpus": str(place)}
        return Application(merge(load_config(), over))

    first = applied(tmp_path / "a/day1")
    first.remember_folder()
    origin = tmp_path / "results/applied/day1/folder.json"
    assert json.loads(origin.read_text())["folder"] == "a/day1"
    assert str(tmp_path) not in origin.read_text()
    applied(tmp_path / "a/day1")
    applied(tmp_path / "b/../a/day1")  # the same folder in other words
    with pytest.raises(InputError, match=r"another folder of this name \(a/day1\).*\n.*rename"):
        applied(tmp_path / "b/day1")
    origin.unlink()
    applied(tmp_path / "b/day1")


def test_answers_are_counted_and_what_is_older_is_told(house, tmp_path):
    _, config = house
    (tmp_path / "day1/s").mkdir(parents=True)
    write_video(tmp_path / "day1/s/r.mp4", frames=150)
    write_wav(tmp_path / "day1/s/r.wav", voice(6, 1))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/runs").symlink_to(Path(config["results"]) / "runs")
    over = {**config, "results": str(tmp_path / "results"), "corpus": str(tmp_path / "day1")}
    study = Application(merge(load_config(), over))
    home = tmp_path / "results/applied/day1/engagement/day1"
    for name in ("s/r", "gone/r"):
        (home / name).parent.mkdir(parents=True)
        (home / f"{name}.engagement.csv").write_text("x")
    lines = study.closing().splitlines()
    assert lines[0].startswith("engagement") and lines[0].endswith("/*.engagement.csv (1)")
    assert [line for line in lines if line.startswith("older")] == [
        f"older       {home}/gone/r.engagement.csv: of nobody in {tmp_path / 'day1'}"
    ]


@pytest.mark.parametrize("value", [202405, 7, 1.5])
def test_a_folder_whose_name_snakemake_takes_for_a_number(value):
    with pytest.raises(InputError, match=r"corpus: .* is not of type.*\n.*corpus=\./2024_05"):
        check_config(load_config() | {"corpus": value})
