"""Combined predictions, pooled scores of folds, starting weights, smoothing: the numbers."""

import json

import h5py
import numpy as np
import pytest
import torch
from evaluation_data import write_labels, write_predictions
from model_data import DIMS, DYAD, write_corpus, write_session

from evaluation import ensemble as ensemble_module
from evaluation.ensemble import ensemble
from evaluation.metrics import Moments
from evaluation.predictions import PredictionFile
from evaluation.score import score
from evaluation.tables import make_tables
from inference import predict as predict_module
from inference.config import frames_each_side, parse_prediction
from inference.predict import finish
from runtime import InputError
from store.session_spec import parse_specs
from training import statistics as statistics_module
from training import train as train_module
from training.model_file import load_model

torch.set_num_threads(1)
TIME = np.arange(200) / 25


# ---- ensembles and folds of predictions files ----


def members(tmp_path, rng, held):
    """Predictions files; held: the sessions of each. Returns paths and the values written."""
    values, paths = [], []
    for i, sessions in enumerate(held):
        own = {(s, r): rng.random(200).astype(np.float32) for s in sessions for r in DYAD}
        path = tmp_path / f"m{i}/seed-1/noxi.h5"
        write_predictions(path, {k: (TIME, v) for k, v in own.items()}, run=f"m{i}")
        values.append(own)
        paths.append(path)
    return paths, values


def specs(*sessions):
    return parse_specs([f"noxi/{s}:expert,novice@test" for s in sessions])


def test_an_ensemble_is_the_mean_of_its_members(tmp_path):
    rng = np.random.default_rng(1)
    paths, values = members(tmp_path, rng, [("001", "002")] * 3)
    out = tmp_path / "out.h5"
    argv = ["--members", *map(str, paths), "--sessions", *(s.text() for s in specs("001", "002"))]
    argv += ["--name", "both", "--seed", "4", "--out", str(out), "--log", str(out) + ".log"]
    assert ensemble_module.main(argv) == 0
    with PredictionFile(out) as f:
        assert (f.run, f.seed, f.dataset) == ("both", 4, "noxi")
        for key in values[0]:
            expected = (values[0][key] + values[1][key] + values[2][key]) / 3
            assert np.abs(f.read(*key).values - expected).max() < 1e-6
    record = json.loads(out.with_suffix(".json").read_text())
    assert len(record["inputs"]) == 3


def test_classes_are_averaged_as_probabilities(tmp_path):
    paths = []
    for i, row in enumerate(([0.5, 0.4, 0.1], [0.1, 0.4, 0.5])):
        paths.append(tmp_path / f"m{i}/seed-1/noxi.h5")
        first = float(np.argmax(row))
        write_predictions(paths[i], {("001", "expert"): (TIME, np.full(200, first))}, run=f"m{i}")
        with h5py.File(paths[i], "a") as f:
            f.attrs["classes"] = 3
            f["001/expert/probability"] = np.tile(np.float32(row), (200, 1))
    one = parse_specs(["noxi/001:expert@test"])
    ensemble(paths, one, tmp_path / "out.h5", "x", 1)
    with PredictionFile(tmp_path / "out.h5") as f:
        assert (f.read("001", "expert").values == 1).all()  # likeliest of nobody, and of the mean
        assert np.allclose(f.probability("001", "expert")[0], [0.3, 0.4, 0.3])
    with h5py.File(paths[0], "a") as f:
        del f["001/expert/probability"]
    with pytest.raises(InputError, match="keeps no probabilities"):
        ensemble(paths, one, tmp_path / "out.h5", "x", 1)


def test_folds_score_every_session_by_the_model_that_did_not_see_it(tmp_path):
    """One score pooled over the folds, equal to that of all frames put in one row."""
    rng = np.random.default_rng(2)
    paths, values = members(tmp_path, rng, [("001", "009"), ("002", "009"), ("003", "009")])
    sessions = ("001", "002", "003")
    truth = {}
    for s in sessions:
        for r in DYAD:
            truth[s, r] = np.clip(0.5 * rng.random(200) + 0.1 * int(s), 0, 1).astype(np.float32)
            write_labels(tmp_path, "noxi", s, r, truth[s, r])
    out = tmp_path / "predictions.h5"
    counts = ensemble(paths, specs(*sessions, "009"), out, "folds", 1, folds=True)
    assert counts == {"members": 3, "sessions": 4, "frames": 4 * 2 * 200}
    with PredictionFile(out) as f:
        for i, s in enumerate(sessions):
            for r in DYAD:
                assert (f.read(s, r).values == values[i][s, r]).all()
        mean = np.mean([v["009", "expert"] for v in values], axis=0)
        assert np.allclose(f.read("009", "expert").values, mean)
    texts = [s.text() for s in specs(*sessions)]
    some = [t.replace("@test", "@late") for t in texts[1:]]  # a set that the config selects
    scores = tmp_path / "scores.json"
    score(out, tmp_path, [*texts, *some], None, [], scores)
    found = json.loads(scores.read_text())["splits"]
    keys = [(i, s, r) for i, s in enumerate(sessions) for r in DYAD]
    for name, chosen in (("test", keys), ("late", [k for k in keys if k[1] != "001"])):
        x = np.concatenate([truth[s, r] for _, s, r in chosen]).astype(np.float64)
        y = np.concatenate([values[i][s, r] for i, s, r in chosen]).astype(np.float64)
        ccc = 2 * np.mean((x - x.mean()) * (y - y.mean()))
        ccc /= x.var() + y.var() + (x.mean() - y.mean()) ** 2
        assert found[name]["ccc"] == pytest.approx(ccc, abs=1e-9)
        assert found[name]["ccc"] == pytest.approx(Moments.of(x, y).ccc, abs=1e-9)
    table = make_tables([scores], tmp_path / "table", columns=["noxi/test", "noxi/late"])
    assert table.columns[:2] == ["noxi/test", "noxi/late"]
    cells = table.rows[0].cells
    assert cells["noxi/late"].mean != cells["noxi/test"].mean
    assert cells["Combined"].mean == cells["noxi/test"].mean  # selected sets enter no mean


def test_sessions_that_members_lack_are_named(tmp_path):
    rng = np.random.default_rng(3)
    paths, _ = members(tmp_path, rng, [("001", "002"), ("001",), ("001",)])
    with pytest.raises(InputError, match="noxi/002 is predicted by 1 of 3 members"):
        ensemble(paths, specs("001", "002"), tmp_path / "o.h5", "x", 1)
    ensemble(paths, specs("001", "002"), tmp_path / "o.h5", "x", 1, folds=True)
    with pytest.raises(InputError, match="noxi/003 is predicted by 0 of 3"):
        ensemble(paths, specs("003"), tmp_path / "o.h5", "x", 1, folds=True)
    (two := tmp_path / "two").mkdir()
    paths, _ = members(two, rng, [("001", "002"), ("001", "002"), ("001",)])
    with pytest.raises(InputError) as e:
        ensemble(paths, specs("002"), tmp_path / "o.h5", "x", 1, folds=True)
    assert "by one fold or by all" in e.value.cure and "2 of 3 members" in e.value.problem


def test_members_on_other_frames_are_refused(tmp_path):
    for i, rate in enumerate((25, 100)):
        time = np.arange(8 * rate) / rate
        write_predictions(tmp_path / f"{i}.h5", {("001", "expert"): (time, np.zeros(8 * rate))})
    with pytest.raises(InputError, match="at different times"):
        one = parse_specs(["noxi/001:expert@test"])
        ensemble([tmp_path / "0.h5", tmp_path / "1.h5"], one, tmp_path / "o.h5", "x", 1)


# ---- smoothing and clipping ----


@pytest.mark.parametrize(("seconds", "frames"), [(0.2, 5), (0.12, 3), (1.0, 25), (100.0, 2501)])
def test_smoothing_is_the_centred_mean_of_valid_frames(seconds, frames):
    rng = np.random.default_rng(4)
    x, valid = rng.normal(0.5, 0.4, 300).astype(np.float32), rng.random(300) > 0.2
    config = parse_prediction({"smooth_s": seconds})
    each = frames_each_side(seconds, 25)
    assert 2 * each + 1 == frames
    got = finish(x, valid, config, 25)
    for i in range(300):
        around = slice(max(0, i - each), i + each + 1)
        expected = x[around][valid[around]].astype(np.float64).mean() if valid[i] else x[i]
        assert got[i] == pytest.approx(expected, abs=1e-6)
    clipped = finish(x, valid, parse_prediction({"smooth_s": seconds, "clip": True}), 25)
    assert np.array_equal(clipped, got.clip(0, 1))
    only = finish(x, valid, parse_prediction({"clip": True}), 25)
    assert np.array_equal(only, x.clip(0, 1)) and only.min() == 0 and only.max() == 1


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"smooth_s": -1}, "smooth_s"),
        ({"smooth_s": 1.0, "mode": "carry"}, "is causal"),
        ({"smooth_s": 1.0, "mode": "stream"}, "is causal"),
        ({"clip": 3}, "clip"),
        ({"smoth_s": 1.0}, "unknown key"),
    ],
)
def test_wrong_finishing_is_refused(settings, problem):
    with pytest.raises(InputError) as e:
        parse_prediction(settings)
    assert problem in e.value.problem


# ---- real trainings: folds from another run ----

SMALL = {"d": 8, "heads": 2, "context_width": 8, "state": 4}
FEW = {"epochs": 1, "batch": 8}


def settings(**model):
    config = {"preset": "demo", "features": list(DIMS), "model": SMALL | model, "training": FEW}
    return json.dumps(config)


def make_statistics(results, sessions, out):
    argv = ["--sessions", *sessions, "--features", *DIMS, "--results", str(results)]
    assert statistics_module.main([*argv, "--out", str(out), "--log", f"{out}.log"]) == 0
    return out


def fit(results, sessions, folder, *extra, config=None):
    folder.mkdir(parents=True, exist_ok=True)
    statistics = make_statistics(results, sessions, folder / "statistics.h5")
    argv = ["--settings", config or settings(), "--train", *sessions, "--results", str(results)]
    argv += ["--statistics", str(statistics), "--seed", "1", "--out", str(folder / "m.safetensors")]
    argv += ["--history", str(folder / "h.jsonl"), "--log", str(folder / "log"), *extra]
    return train_module.main(argv), folder / "m.safetensors"


def apply(results, checkpoint, sessions, out, *extra):
    argv = ["--checkpoint", str(checkpoint), "--sessions", *sessions, "--results", str(results)]
    assert predict_module.main([*argv, "--out", str(out), "--log", f"{out}.log", *extra]) == 0
    return out


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    results = tmp_path_factory.mktemp("start")
    sessions = write_corpus(results, 2, 8.0)
    groups = [write_session(results, "mpiigi", f"{i:03d}", DYAD, 6.0, i) for i in (8, 9, 10)]
    status, model = fit(results, sessions, results / "noxi")
    assert status == 0
    return results, model, [f"{g}@val" for g in groups]


def test_folds_from_another_run_with_their_own_normalisation(start, tmp_path):
    results, noxi, groups = start
    paths, starts = [], load_model(noxi).model
    for i, held in enumerate(groups):
        rest = [g for g in groups if g != held]
        frozen = json.loads(settings()) | {"training": FEW | {"learning_rate": 1e-12}}
        status, model = fit(
            results, rest, tmp_path / f"{i}", "--initial", str(noxi), config=json.dumps(frozen)
        )
        assert status == 0
        trained = load_model(model).model
        for name, weight in starts.named_parameters():  # the steps are too small to be seen
            assert torch.allclose(weight, trained.get_parameter(name), atol=1e-6), name
        means = [b for n, b in trained.named_buffers() if n.endswith(".mean")]
        old = [b for n, b in starts.named_buffers() if n.endswith(".mean")]
        assert means and all(not torch.equal(a, b) for a, b in zip(means, old, strict=True))
        plain = fit(results, rest, tmp_path / f"plain{i}", config=json.dumps(frozen))[1]
        for name, buffer in load_model(plain).model.named_buffers():
            assert torch.equal(buffer, trained.get_buffer(name)), name
        record = json.loads(model.with_suffix(".json").read_text())
        assert "initial" in record["inputs"]
        out = tmp_path / f"fold{i}/seed-1/mpiigi.h5"
        out.parent.mkdir(parents=True)
        paths.append(apply(results, model, [held], out))
    ensemble(paths, parse_specs(groups), tmp_path / "all.h5", "folds", 1, folds=True)
    record = score(tmp_path / "all.h5", results, groups, None, [], tmp_path / "s.json")
    assert record["splits"]["val"]["n_sessions"] == 3 and record["splits"]["val"]["ccc"] is not None


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (settings(d=16), "has other model.d"),
        (json.dumps({"preset": "demo", "features": list(DIMS), "model": {"name": "mlp"}, "training": FEW}), "has other model.name"),
        (json.dumps({"preset": "demo", "features": ["egemaps"], "model": SMALL, "training": FEW}), "has other features"),
    ],
)  # fmt: skip
def test_other_networks_cannot_start_from_it(start, tmp_path, config, problem):
    results, noxi, groups = start
    status, model = fit(results, groups, tmp_path, "--initial", str(noxi), config=config)
    assert status and not model.exists()
    assert problem in (tmp_path / "log").read_text()


def test_smoothed_predictions_are_the_smoothed_ones(start, tmp_path):
    results, noxi, groups = start
    raw = apply(results, noxi, groups[:1], tmp_path / "raw.h5")
    smooth = apply(results, noxi, groups[:1], tmp_path / "s.h5", "--smooth-s", "0.2", "--clip")
    config = parse_prediction({"smooth_s": 0.2, "clip": True})
    with PredictionFile(raw) as a, PredictionFile(smooth) as b:
        for role in DYAD:
            x, y = a.read("008", role), b.read("008", role)
            expected = finish(x.values.astype(np.float32), x.valid, config, 25)
            assert np.allclose(y.values, expected) and not np.array_equal(x.values, y.values)
