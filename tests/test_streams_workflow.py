"""From a download to a table by real Snakemake: streams as they come, and ours beside them."""

import csv
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from aligned_files import feature_file
from stream_trees import EGEMAPS, W2VBERT, put, values

from alignment import align
from alignment.aligned import AlignedFeature
from alignment.labels import build_parser as label_parser
from corpora.__main__ import main as corpora
from extractors import stream as extractor
from model.configs.base import complete_groups
from runtime import InputError
from workflow.config import load_config, load_yaml, merge
from workflow.options import options
from workflow.recordings import label_settings
from workflow.study import Study
from workflow.submission import submission

ROOT = Path(__file__).resolve().parent.parent
STREAMS = {
    "audio_egemaps": {"from": "stream", "name": EGEMAPS},
    "audio_w2vbert": {"from": "stream", "name": W2VBERT, "dtype": "float16"},
}


SECONDS = 12
MIXED = ["egemaps", *STREAMS]  # ours, of the sound file, and the challenge's
PEOPLE = [
    ("train", "001", "expert"), ("train", "001", "novice"),
    ("train", "003", "expert"), ("val", "007", "expert"),
]  # fmt: skip


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    """(folder, config): a miniature download of two training sessions and one to validate on.

    The engagement stands in the first column of the sound, and in the loudness of a noise (wav);
    w2v-BERT's header says 40 Hz. There is no video.
    """
    import soundfile

    house = tmp_path_factory.mktemp("a download")
    n = SECONDS * 25
    for i, (split, session, role) in enumerate(PEOPLE):
        folder = house / "data/NoXi" / split / session
        engagement = 0.5 + 0.4 * np.sin(np.arange(n) / 25 + i)
        x = values(n, 6, i)
        x[:, 0] = engagement
        put(folder, role, EGEMAPS, x)
        put(folder, role, W2VBERT, values(n, 4, i), 40.0)
        if session != "003":
            put(folder, role, "clip", values(n, 4, i))
        lines = "".join(f"{v:.4f}\n" for v in engagement)
        (folder / f"{role}.engagement.annotation.csv").write_text(lines)
        noise = np.random.default_rng(i).uniform(-0.5, 0.5, n * 640)
        soundfile.write(folder / f"{role}.audio.wav", noise * np.repeat(engagement, 640), 16000)
    with pytest.MonkeyPatch.context() as patch:
        sheet = (house / "sessions.tsv").open("w", encoding="utf-8")
        patch.setattr(sys, "stdout", sheet)
        assert corpora(["init", "noxi", str(house / "data")]) == 0
        sheet.close()
    config = {
        "results": str(house / "results"),
        "sessions": str(house / "sessions.tsv"),
        "media_root": str(house / "data"),
        "demo": None,
        "features": STREAMS,
        "defaults": {
            "features": MIXED,
            "evaluate": ["noxi/val"],
            "seeds": [1],
            "training": {"epochs": 20, "batch": 4},
        },
        "runs": {
            "da_mamba": None, "da_mamba_no_partner": None, "constant": None,
            "egemaps_mlp": {"features": MIXED},
        },
        "tables": {"main": {"runs": ["egemaps_mlp"], "bootstrap": 20}},
    }  # fmt: skip
    (house / "own.yaml").write_text(yaml.safe_dump(config))
    return house, config


@pytest.fixture(scope="module")
def table(challenge):
    """Real Snakemake from the streams to the CCC table."""
    house, _ = challenge
    environment = {k: v for k, v in os.environ.items() if k not in ("STUB_JOBS", "PYTHONPATH")}
    target = house / "results/tables/main/ccc.csv"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--nocolor", "--nolock",
         "--configfile", str(house / "own.yaml"), "--", str(target)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return target


def test_from_the_download_to_a_table(table, challenge):
    house, _ = challenge
    with open(table, encoding="utf-8", newline="") as f:
        (row,) = csv.DictReader(f)
    score = float(next(v for k, v in row.items() if k.startswith("noxi/val")))
    assert score > 0.5  # the sound tells the engagement, and nothing else does
    n = SECONDS * 25
    with h5py.File(house / "results/predictions/egemaps_mlp/seed-1/noxi.h5") as f:
        y = f["007/expert/engagement"][:n].astype(float)
    csv_file = house / "data/NoXi/val/007/expert.engagement.annotation.csv"
    x = np.loadtxt(csv_file).astype(np.float32).astype(float)
    ccc = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert score == pytest.approx(ccc, abs=1e-6)
    with AlignedFeature(house / "results/aligned/noxi/007/expert/audio_w2vbert.h5") as feature:
        assert feature.native_rate_hz == 25 and feature.n_ticks == SECONDS * 100
        assert feature.valid(0, feature.n_ticks).all()
    made = {f.stem for f in (house / "results/features/noxi/007/expert").glob("*.h5")}
    assert made == set(MIXED)  # ours and theirs, and nothing that nobody asked for
    assert not (house / "results/faces").exists()  # nobody looked for a video


def test_a_trained_run_refuses_other_features_and_names_them(table, challenge, capsys):
    from inference import predict
    from model.checkpoint import load_tensors

    house, _ = challenge
    model = house / "results/runs/egemaps_mlp/seed-1/model.safetensors"
    known = load_tensors(model)[1]["features"]
    assert set(known) == set(MIXED) and [known[f]["dims"] for f in MIXED] == [88, 6, 4]
    assert known["audio_egemaps"]["model_id"] == f"precomputed stream {EGEMAPS}"
    assert known["egemaps"]["extractor"] == "extractors.egemaps"
    results = house / "results"
    command = ["--checkpoint", str(model), "--sessions", "noxi/007:expert@val"]
    assert predict.main([*command, "--results", str(results), "--out", str(house / "p.h5")]) == 0

    # As many columns under the same name, but of another origin.
    time = np.arange(SECONDS * 25) / 25
    precomputed = put(house, "expert", EGEMAPS, values(len(time), 88))
    theirs, ours = house / "theirs.h5", house / "ours.h5"
    extractor.extract(str(precomputed), str(theirs), "egemaps", {})
    feature_file(ours, values(len(time), 6), time, name="audio_egemaps")
    for name, swapped, origin, trained_on in [
        ("egemaps", theirs, "extractors.stream", "extractors.egemaps"),
        ("audio_egemaps", ours, "extractors.audio_egemaps", "extractors.stream"),
    ]:
        there = house / name
        shutil.copytree(results / "aligned/noxi/007", there / "aligned/noxi/007")
        place = there / "aligned/noxi/007/expert"
        (place / f"{name}.json").unlink()
        align.align(swapped, place.parent / "clock.json", place / f"{name}.h5")
        capsys.readouterr()
        assert predict.main([*command, "--results", str(there), "--out", str(house / "q.h5")]) == 1
        error = capsys.readouterr().err
        assert f"noxi/007/expert/{name}.h5 is not what" in error
        assert f"the extractor of {name} is {origin} instead of {trained_on}" in error
        assert not (house / "q.h5").exists()


def study(challenge, **over) -> Study:
    return Study(merge(merge(load_config(), challenge[1]), over))


@pytest.fixture(scope="module")
def silent(challenge, tmp_path_factory):
    """What a study of the same people without their sound files changes."""
    header, *rows = (challenge[0] / "sessions.tsv").read_text().splitlines()
    at = header.split("\t").index("audio")
    cells = [row.split("\t") for row in rows]
    assert all(row[at].endswith(".audio.wav") for row in cells)  # init found them
    lines = ["\t".join([*row[:at], "", *row[at + 1 :]]) for row in cells]
    sheet = tmp_path_factory.mktemp("silent") / "sessions.tsv"
    sheet.write_text("\n".join([header, *lines]) + "\n")
    return {"sessions": str(sheet), "runs": {"egemaps_mlp": {"features": list(STREAMS)}}}


def test_our_extractors_are_left_alone_where_nothing_can_be_extracted(challenge, silent):
    """They are enabled by default; nobody has sound or picture, and no run asks for them."""
    s = study(challenge, **silent)
    assert "clip_face" in s.features
    assert s.session_features(("noxi", "001")) == ["audio_egemaps", "audio_w2vbert"]
    assert s.streams == list(STREAMS)


@pytest.mark.parametrize(
    ("features", "run", "problem"),
    [
        ({}, ["clip_face"], "reads the feature clip_face, but noxi/001 expert has no video"),
        ({}, ["egemaps"], "reads the feature egemaps, but noxi/001 expert has no sound"),
        (
            {"clip": {"from": "stream", "name": "clip"}},
            ["audio_egemaps", "clip"],
            "reads the feature clip, but noxi/003 expert has no stream",
        ),
        ({"clip": {"from": "stream"}}, ["audio_egemaps"], "key `name` is missing"),
        ({"klip": {"enabled": True}}, ["audio_egemaps"], "features.klip: unknown key"),
        (
            {"clip": {"from": "stream", "name": "clip", "drp": 3}},
            ["audio_egemaps"],
            "features.clip.drp: unknown key",
        ),
        ({"clip": {"from": "hub", "name": "clip"}}, ["audio_egemaps"], "features.clip.from"),
    ],
)
def test_what_a_run_cannot_have_is_told_before_anything_runs(
    challenge, silent, features, run, problem
):
    over = silent | {"features": features, "runs": {"egemaps_mlp": {"features": run}}}
    with pytest.raises(InputError) as e:
        study(challenge, **over)
    assert problem in e.value.problem, e.value.problem


def test_an_extractors_name_may_be_given_to_a_stream(challenge):
    over = {
        "features": {"egemaps": {"from": "stream", "name": EGEMAPS}},
        "runs": {"egemaps_mlp": {"features": ["egemaps"]}},
    }
    s = study(challenge, **over)
    assert "egemaps" in s.streams
    settings = s.feature_settings("egemaps")
    assert "mode" not in settings and settings["doubled"] == "refuse"
    assert s.feature_fingerprint("egemaps") != study(challenge).feature_fingerprint("egemaps")
    options = s.stream_options(s.participants[0], "egemaps")
    assert f"{W2VBERT}=" in options and f"{EGEMAPS}=" not in options


def test_a_submission_is_of_a_run_a_seed_and_test_sets(challenge):
    section = {"year": 2026, "run": "egemaps_mlp", "seed": 1}
    for over, problem in [
        ({}, "`submission` is empty"),
        ({"submission": section | {"run": "dat"}}, "submission.run names dat"),
        ({"submission": section | {"seed": 4}}, "submission.seed is 4"),
        (
            {"submission": section},
            "predicts nothing for noxi-additional, mpiigroupinteraction, noxi-j",
        ),
    ]:
        with pytest.raises(InputError) as e:
            submission(study(challenge, **over))
        assert problem in e.value.problem


def test_extracted_and_precomputed_features_mix(challenge):
    """Our eGeMAPS beside the challenge's streams in one run; another extractor that could run, can."""
    s = study(challenge)
    assert s.runs["egemaps_mlp"].features == tuple(MIXED)
    assert s.session_features(("noxi", "001")) == sorted([*MIXED, "wav2vec2"])


def test_the_label_job_takes_every_setting_of_the_config(challenge):
    """All keys that the schema knows at once; the words about proxies are for the tables."""
    known = load_yaml(ROOT / "workflow/schemas/config.schema.yaml")["properties"]["labels"][
        "properties"
    ]
    labels = {"rate_hz": 30, "classes": ["low", "high"], "proxies": True, "datasets": {}}
    assert set(labels) == set(known)
    words = shlex.split(options(label_settings(labels, "noxi")))
    args = label_parser().parse_args([*words, "--labels", "l", "--probe", "p", "--out", "o"])
    assert (args.rate_hz, args.classes) == (30, ["low", "high"]) and len(words) == 4


def test_label_files_of_two_kinds_in_one_study(challenge):
    classes = ["solitary", "onlooker"]
    own = {"datasets": {"pinsoro-cc": {"rate_hz": 30, "classes": classes}}}
    labels = study(challenge, labels=own).config["labels"]
    assert label_settings(labels, "noxi") == {"rate_hz": 25}
    assert label_settings(labels, "pinsoro-cc") == {"rate_hz": 30, "classes": classes}
    # Without the section, and the other way round: most are words, one is values.
    assert label_settings({"rate_hz": 25}, "noxi") == {"rate_hz": 25}
    values = {
        "rate_hz": 30,
        "classes": classes,
        "datasets": {"noxi": {"rate_hz": 25, "classes": []}},
    }
    assert label_settings(values, "noxi") == {"rate_hz": 25}
    with pytest.raises(InputError, match="labels.datasets.noxi.rate: unknown key"):
        study(challenge, labels={"datasets": {"noxi": {"rate": 25}}})


def test_the_label_job_gets_the_settings_of_its_dataset(challenge):
    house, config = challenge
    own = {"datasets": {"noxi": {"rate_hz": 24, "classes": ["play", "no play"]}}}
    (house / "labels.yaml").write_text(yaml.safe_dump(config | {"labels": own}))
    target = house / "dry/labels/noxi/007/expert.h5"
    command = ["-n", "-p", "--cores", "1", "--nocolor", "--configfile", str(house / "labels.yaml")]
    command += ["--config", f"results={house / 'dry'}", "--", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *command],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [w for w in done.stdout.splitlines() if "python -m alignment.labels" in w]
    assert "--rate-hz=24" in line and "--classes play 'no play'" in line


def test_groups_of_the_challenges_names():
    names = ["audio_egemaps", "audio_w2vbert", "xlm", "clip", "openface2", "openpose", "dino"]
    names += ["swin", "videomae", "imagebind", "openface3"]
    groups = complete_groups({}, names)
    assert groups == {"audio": names[:3], "visual": names[3:]}
