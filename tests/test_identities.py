"""Training and prediction refuse features with other settings, for every participant."""

import json
import re

import h5py
import pytest
from model_data import DYAD, write_corpus, write_session

from inference import predict as predict_module
from model.checkpoint import load_tensors, save_tensors
from training import statistics as statistics_module
from training import train as train_module

DIMS = {"wav2vec2": 4, "flow": 3}
SETTINGS = {
    "wav2vec2": {"weights": "sha256:aa", "layer": -1, "precision": "fp32"},
    "flow": {"grid": 4, "faces": {"margin": 1.6, "crop_size": 224}},
}


def change(results, place, feature, **settings):
    """Give an aligned file other settings; None takes all of them away, as in an earlier version."""
    path = results / f"aligned/{place}/{feature}.h5"
    with h5py.File(path, "r+") as f:
        now = json.loads(f.attrs["settings"])
        if settings:
            f.attrs["settings"] = json.dumps(now | settings)
        else:
            del f.attrs["settings"]
    return path


@pytest.fixture
def corpus(tmp_path):
    """Two dyads to train on, one to validate and one to test, all made alike."""
    train = write_corpus(tmp_path, 2, 6.0, dims=DIMS)
    val, test = (write_session(tmp_path, "noxi", n, DYAD, 6.0, 1, DIMS) for n in ("101", "201"))
    for session in ("001", "002", "101", "201"):
        for role in DYAD:
            for feature, settings in SETTINGS.items():
                change(tmp_path, f"noxi/{session}/{role}", feature, **settings)
    return tmp_path, train, [val], [test + "@test"]


def statistics(corpus):
    out = corpus[0] / "s.h5"
    argv = ["--sessions", *corpus[1], "--features", *DIMS, "--results", str(corpus[0])]
    return statistics_module.main([*argv, "--out", str(out), "--log", str(out) + ".log"])


def train(corpus):
    results, sessions, val, _ = corpus
    settings = {"preset": "demo", "features": list(DIMS), "training": {"epochs": 1, "batch": 8}}
    settings["model"] = {"d": 8, "heads": 2, "context_width": 8, "state": 4}
    argv = ["--settings", json.dumps(settings), "--train", *sessions, "--validate", *val]
    argv += ["--results", str(results), "--statistics", str(results / "s.h5")]
    argv += ["--out", str(results / "m.safetensors"), "--history", str(results / "h.jsonl")]
    return train_module.main([*argv, "--log", str(results / "train.log")])


def predict(corpus, *extra):
    results, *_, test = corpus
    argv = ["--checkpoint", str(results / "m.safetensors"), "--sessions", *test, *extra]
    argv += ["--results", str(results), "--out", str(results / "p.h5")]
    return predict_module.main([*argv, "--log", str(results / "predict.log")])


def save(results, tensors, metadata):
    (results / "m.json").unlink(missing_ok=True)  # else the file is not the one it describes
    save_tensors(results / "m.safetensors", tensors, metadata)


@pytest.fixture
def trained(corpus):
    assert statistics(corpus) == 0 and train(corpus) == 0
    return corpus


def test_statistics_and_model_record_what_made_their_features(trained):
    _, metadata = load_tensors(trained[0] / "m.safetensors")
    stated, _ = statistics_module.read_statistics(trained[0] / "s.h5")
    align = {"align": {"method": "linear", "max_gap_s": 0.2}}
    for feature, settings in SETTINGS.items():
        assert metadata["features"][feature]["settings"] == settings | align
        assert metadata["features"][feature]["dims"] == DIMS[feature]
        assert stated[feature]["identity"] == metadata["features"][feature]
    assert predict(trained) == 0
    assert "WARNING" not in (trained[0] / "predict.log").read_text()


@pytest.mark.parametrize("mode", ["window", "carry", "stream"])
@pytest.mark.parametrize(
    ("feature", "settings", "said", "cure"),
    [
        ("wav2vec2", {"layer": 0}, "layer is 0 instead of -1", "features: {wav2vec2: {layer: -1}}"),
        ("flow", {"faces": {"margin": 1.9, "crop_size": 224}}, "faces.margin is 1.9 instead of 1.6",
         "faces: {margin: 1.6}"),
    ],
)  # fmt: skip
def test_prediction_refuses_other_settings(trained, capsys, feature, settings, said, cure, mode):
    """Of any participant, not of the first alone."""
    path = change(trained[0], "noxi/201/novice", feature, **settings)
    capsys.readouterr()
    assert predict(trained, "--mode", mode) == 1
    error = capsys.readouterr().err
    assert str(path) in error and said in error and cure in error
    assert not (trained[0] / "p.h5").exists()


def test_one_training_has_features_made_alike(corpus, capsys):
    change(corpus[0], "noxi/002/novice", "wav2vec2", layer=0)
    assert statistics(corpus) == 1
    error = capsys.readouterr().err
    assert "noxi/002/novice, features.wav2vec2.layer is 0 instead of -1" in error
    native = corpus[0] / "features/noxi/002/novice/wav2vec2.h5"
    assert "{wav2vec2: {layer: -1}}" in error and f"rm '{native}'" in error and native.exists()
    assert not (corpus[0] / "s.h5").exists()


def test_validation_and_statistics_belong_to_the_training(corpus, capsys):
    assert statistics(corpus) == 0
    change(corpus[0], "noxi/101/expert", "flow", grid=3)
    assert train(corpus) == 1
    assert "noxi/101/expert, features.flow.grid is 3 instead of 4" in capsys.readouterr().err
    for session in ("001", "002", "101"):
        for role in DYAD:
            change(corpus[0], f"noxi/{session}/{role}", "flow", grid=3)
    assert train(corpus) == 1
    error = capsys.readouterr().err
    assert "s.h5 was computed of other features: features.flow.grid is 3 instead of 4" in error
    assert not (corpus[0] / "m.safetensors").exists()


def test_files_of_an_earlier_version_are_named_with_what_cannot_be_compared(trained):
    results = trained[0]
    change(results, "noxi/201/novice", "wav2vec2")
    assert predict(trained) == 0
    (line,) = re.findall("WARNING.*", (results / "predict.log").read_text())
    assert "wav2vec2 cannot be compared in full between noxi/201/novice and" in line
    assert "only one says align.max_gap_s, align.method, layer, precision, weights" in line
    # The model file says nothing but the extractor: that is compared, the rest is named.
    tensors, metadata = load_tensors(results / "m.safetensors")
    metadata["features"] = {f: {"extractor": "test"} for f in DIMS}
    save(results, tensors, metadata)
    assert predict(trained) == 0
    lines = re.findall("WARNING.*", (results / "predict.log").read_text())
    assert len(lines) == len(DIMS) and all("m.safetensors" in line for line in lines)
    metadata["features"]["flow"]["extractor"] = "extractors.stream"
    save(results, tensors, metadata)
    assert predict(trained) == 1


def test_a_model_of_no_domain_has_no_unknown_prompt(trained, capsys):
    results = trained[0]
    tensors, metadata = load_tensors(results / "m.safetensors")
    metadata["settings"]["model"]["prompts"] = 2
    save(results, tensors, metadata)
    assert predict(trained) == 1
    assert "it has prompts, and names no dataset they belong to" in capsys.readouterr().err
