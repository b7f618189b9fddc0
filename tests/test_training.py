"""Statistics, training, resuming, leaks, prediction: end to end on a small corpus."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from model_data import DIMS, DYAD, write_corpus, write_session

from inference import predict as predict_module
from model.checkpoint import load_tensors, save_tensors
from store.session_spec import parse_spec, parse_specs
from training import statistics as statistics_module
from training import train as train_module
from training.losses import ccc
from training.model_file import load_model
from training.optim import MovingAverage, learning_rate, make_optimiser
from training.sessions import SessionReader
from training.settings import parse
from training.windows import Windows

torch.set_num_threads(1)
FEW = {
    "model": {"d": 8, "heads": 2, "context_width": 8, "state": 4},
    "training": {"epochs": 3, "batch": 8},
}


def settings(**model):
    return {"preset": "demo", "features": list(DIMS), **FEW, "model": FEW["model"] | model}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two training dyads, a validation dyad and a test group of three without labels."""
    results = tmp_path_factory.mktemp("training")
    train = write_corpus(results, 2, 9.0)
    val = [write_session(results, "noxi", "101", DYAD, 6.0, 1)]
    seats = ("subjectPos1", "subjectPos2", "subjectPos3")
    test = [write_session(results, "mpiigi", "009", seats, 6.2, 1, labels=False) + "@test"]
    return results, train, val, test


def make_statistics(results, train, out):
    argv = ["--sessions", *train, "--features", *DIMS, "--results", str(results), "--out", str(out)]
    assert statistics_module.main([*argv, "--log", str(out) + ".log"]) == 0
    return out


def run_training(corpus, folder, config=None, val=(), seed=3, extra=(), statistics=None):
    results, train, *_ = corpus
    folder.mkdir(parents=True, exist_ok=True)
    statistics = statistics or make_statistics(results, train, folder / "statistics.h5")
    argv = ["--settings", json.dumps(config or settings()), "--train", *train]
    argv += ["--validate", *val] if val else []
    argv += ["--results", str(results), "--statistics", str(statistics), "--seed", str(seed)]
    argv += ["--run", "a", "--out", str(folder / "model.safetensors")]
    argv += ["--history", str(folder / "history.jsonl"), "--log", str(folder / "train.log")]
    status = train_module.main([*argv, "--fingerprint", "f", *extra])
    return status, folder


def contents(folder):
    return [(folder / name).read_bytes() for name in ("model.safetensors", "history.jsonl")]


def run_prediction(corpus, checkpoint, specs, out, *extra):
    argv = ["--checkpoint", str(checkpoint), "--sessions", *specs, "--results", str(corpus[0])]
    argv += ["--out", str(out), "--log", str(out) + ".log", *extra]
    return predict_module.main(argv)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    status, folder = run_training(corpus, tmp_path_factory.mktemp("trained"), val=corpus[2])
    assert status == 0
    return folder


def test_statistics_equal_numpy_over_all_valid_frames(corpus, tmp_path, monkeypatch):
    results, train, *_ = corpus
    monkeypatch.setattr(statistics_module, "SLICE_FRAMES", 37)
    path = make_statistics(results, train, tmp_path / "s.h5")
    features, label = statistics_module.read_statistics(path)
    rows = {name: [] for name in DIMS}
    labels = []
    for spec in map(parse_spec, train):
        with SessionReader(results, spec, list(DIMS), 25) as reader:
            for role in spec.roles:
                for name in DIMS:
                    values, valid = reader.read(role, name, 0, reader.n_frames)
                    rows[name].append(values[valid].astype(np.float64))
                value, known = reader.labels(role)
                labels.append(value[known].astype(np.float64))
    for name in DIMS:
        x = np.concatenate(rows[name])
        assert features[name]["count"] == len(x)
        np.testing.assert_allclose(features[name]["mean"], x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(features[name]["std"], x.std(0), rtol=1e-10)
    y = np.concatenate(labels)
    assert label["count"] == len(y) == 4 * (225 - 10)
    assert label["mean"] == pytest.approx(y.mean()) and label["std"] == pytest.approx(y.std())
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["counts"]["labelled_frames"] == len(y)


def test_same_seed_same_bytes_other_seed_other_weights(corpus, trained, tmp_path):
    _, again = run_training(corpus, tmp_path / "again", val=corpus[2])
    _, other = run_training(corpus, tmp_path / "other", val=corpus[2], seed=4)
    assert contents(again) == contents(trained)
    assert contents(other)[0] != contents(trained)[0]
    history = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert [h["epoch"] for h in history] == [1, 2, 3]
    assert {"loss", "score", "alignment", "learning_rate", "steps"} < set(history[0])
    assert "val_ccc" in history[-1] and "val_ccc" not in history[0]  # validate_every 4, and the end
    for h in history:
        assert h["loss"] == pytest.approx(h["score"] + 0.4 * h["alignment"], rel=1e-5)


def test_nothing_of_val_or_test_reaches_statistics_or_weights(corpus, trained, tmp_path):
    results, train, val, test = corpus
    altered = tmp_path / "results"
    shutil.copytree(results, altered)
    for text in [*val, *test]:
        spec = parse_spec(text)
        for role in spec.roles:
            for name in DIMS:
                path = altered / f"aligned/{spec.dataset}/{spec.session}/{role}/{name}.h5"
                with h5py.File(path, "r+") as f:
                    f["values"][...] = 17.0 - 3 * f["values"][...]
            label = altered / f"labels/{spec.dataset}/{spec.session}/{role}.h5"
            if label.exists():
                with h5py.File(label, "r+") as f:
                    f["values"][...] = 1 - f["values"][...]
    changed = (altered, train, val, test)
    status, folder = run_training(changed, tmp_path / "run", val=val)
    assert status == 0
    assert (folder / "statistics.h5").read_bytes() == (trained / "statistics.h5").read_bytes()
    assert contents(folder)[0] == contents(trained)[0]
    # The alteration is real: the validation score, which trains nothing, does change.
    assert contents(folder)[1] != contents(trained)[1]
    # And the same alteration of a training session does change the weights.
    spec = parse_spec(train[0])
    with h5py.File(altered / f"aligned/noxi/{spec.session}/expert/flow.h5", "r+") as f:
        f["values"][:50] = 0.0
    _, folder = run_training(changed, tmp_path / "run2", val=val)
    assert (folder / "statistics.h5").read_bytes() != (trained / "statistics.h5").read_bytes()
    assert contents(folder)[0] != contents(trained)[0]


@pytest.mark.parametrize("after", [5])
def test_resumed_training_equals_an_uninterrupted_one(
    corpus, trained, tmp_path, monkeypatch, after
):
    cache = tmp_path / "cache"
    extra = ["--checkpoint-dir", str(cache), "--save-every-s", "0"]
    optimise, calls = train_module.optimise, []

    def interrupted(*args):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        optimise(*args)

    monkeypatch.setattr(train_module, "optimise", interrupted)
    status, folder = run_training(corpus, tmp_path / "run", val=corpus[2], extra=extra)
    assert status == 130 and not (folder / "model.safetensors").exists()
    (left,) = cache.iterdir()
    assert load_tensors(left)[1]["step"] == after
    steps = []
    monkeypatch.setattr(train_module, "optimise", lambda *a: (steps.append(1), optimise(*a)))
    torch.manual_seed(999)  # the random state must come from the checkpoint
    status, folder = run_training(corpus, tmp_path / "run", val=corpus[2], extra=extra)
    assert status == 0 and contents(folder) == contents(trained)
    total = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])["steps"]
    assert len(steps) == total - after > 0
    assert list(cache.iterdir()) == []


def test_training_interrupted_after_every_single_step_ends_bit_equal(
    corpus, trained, tmp_path, monkeypatch
):
    """A call per step, each killed at the start of the next one."""
    extra = ["--checkpoint-dir", str(tmp_path / "cache"), "--save-every-s", "0"]
    optimise, calls = train_module.optimise, []

    def one(*args):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        optimise(*args)

    monkeypatch.setattr(train_module, "optimise", one)
    total = json.loads((trained / "history.jsonl").read_text().splitlines()[-1])["steps"]
    for step in range(total):
        calls.clear()
        torch.manual_seed(step)
        status, folder = run_training(corpus, tmp_path / "run", val=corpus[2], extra=extra)
        assert status == (0 if step == total - 1 else 130)
    assert contents(folder) == contents(trained)


@pytest.mark.parametrize("damage", ["foreign", "broken", "bit"])
def test_a_foreign_or_broken_resume_checkpoint_is_ignored(corpus, trained, tmp_path, damage):
    cache = tmp_path / "cache"
    cache.mkdir()
    path = cache / "a.seed-3.safetensors"
    if damage == "foreign":
        save_tensors(path, {"model/x": torch.zeros(3)}, {"key": "another", "step": 4})
    elif damage == "bit":  # a weight of a sound file: no structure shows it

        def stop(*args):
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            calls = []
            optimise = train_module.optimise
            patch.setattr(train_module, "optimise", lambda *a: stop() if calls else (calls.append(1), optimise(*a)))  # fmt: skip
            extra = ["--checkpoint-dir", str(cache), "--save-every-s", "0"]
            run_training(corpus, tmp_path / "run", val=corpus[2], extra=extra)
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"half a file")
    status, folder = run_training(
        corpus, tmp_path / "run", val=corpus[2], extra=["--checkpoint-dir", str(cache)]
    )
    assert status == 0 and contents(folder) == contents(trained)
    assert "ignored" in (folder / "train.log").read_text()


def test_best_val_keeps_the_epoch_with_the_highest_score(corpus, trained, tmp_path):
    config = settings()
    config["training"] = FEW["training"] | {"selection": "best_val", "validate_every": 1}
    _, folder = run_training(corpus, tmp_path / "run", config, val=corpus[2])
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    kept = load_model(folder / "model.safetensors")
    w = Windows(corpus[0], parse_specs(corpus[2]), kept.settings, True)
    state = train_module.State(kept.model, MovingAverage(kept.model, 0.0), None)
    score = train_module.validate(state, w, 8, torch.device("cpu"))
    assert score == pytest.approx(max(h["val_ccc"] for h in history), abs=1e-6)
    status, folder = run_training(corpus, tmp_path / "none", config)
    assert status == 1 and "best_val" in (folder / "train.log").read_text()


def test_prediction_file(corpus, trained, tmp_path):
    out = tmp_path / "p.h5"
    checkpoint = trained / "model.safetensors"
    assert run_prediction(corpus, checkpoint, corpus[3], out, "--fingerprint", "g") == 0
    with h5py.File(out) as f:
        assert f.attrs["run"] == "a" and f.attrs["seed"] == 3 and f.attrs["dataset"] == "mpiigi"
        assert f.attrs["fingerprint"] == "g" and f.attrs["schema_version"] == 1
        assert list(f) == ["009"] and f["009"].attrs["split"] == "test"
        for seat in ("subjectPos1", "subjectPos2", "subjectPos3"):
            g = f["009"][seat]
            np.testing.assert_allclose(g["time"][()], np.arange(155) / 25)
            assert g["engagement"].dtype == np.float32 and np.isfinite(g["engagement"][()]).all()
            assert g["valid"].dtype == bool and g["valid"].shape == g["engagement"].shape == (155,)
    twice = tmp_path / "q.h5"
    run_prediction(corpus, checkpoint, corpus[3], twice, "--fingerprint", "g")
    assert twice.read_bytes() == out.read_bytes()


def test_predictions_do_not_depend_on_batch_or_slices_and_score_as_validation(
    corpus, trained, tmp_path, monkeypatch
):
    checkpoint = trained / "model.safetensors"
    spec = [corpus[2][0] + "@val"]
    assert run_prediction(corpus, checkpoint, spec, tmp_path / "a.h5") == 0
    monkeypatch.setattr(predict_module, "BATCH", 3)
    monkeypatch.setattr("training.windows.SLICE_FRAMES", 2 * 32)
    assert run_prediction(corpus, checkpoint, spec, tmp_path / "b.h5") == 0
    scores, labels, known = [], [], []
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        reader = SessionReader(corpus[0], parse_spec(spec[0]), list(DIMS), 25)
        for role in DYAD:
            score = a["101"][role]["engagement"][()]
            np.testing.assert_allclose(b["101"][role]["engagement"][()], score, atol=1e-6)
            value, mask = reader.labels(role)
            scores.append(score)
            labels.append(value)
            known.append(mask)
        reader.close()
    pooled = ccc(*(torch.from_numpy(np.concatenate(x)) for x in (scores, labels, known)))
    last = json.loads((trained / "history.jsonl").read_text().splitlines()[-1])
    assert float(pooled) == pytest.approx(last["val_ccc"], abs=1e-5)


def test_frames_without_any_feature_are_marked(corpus, trained, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(corpus[0], results)
    for name in DIMS:
        with h5py.File(results / f"aligned/noxi/101/novice/{name}.h5", "r+") as f:
            row = f["row"][()]
            row[200:260] = -1  # ticks of 2.0 .. 2.6 s
            f["row"][...] = row
    out = tmp_path / "p.h5"
    changed = (results, *corpus[1:])
    assert run_prediction(changed, trained / "model.safetensors", corpus[2], out) == 0
    with h5py.File(out) as f:
        valid = f["101"]["novice"]["valid"][()]
        assert not valid[50:65].any() and valid[:50].all() and valid[65:].all()
        assert f["101"]["expert"]["valid"][()].all()
        assert np.isfinite(f["101"]["novice"]["engagement"][()]).all()


def test_constant_predicts_the_mean_of_the_training_labels(corpus, tmp_path):
    config = {"preset": "demo", "features": ["egemaps"], "model": {"name": "constant"}}
    status, folder = run_training(corpus, tmp_path / "run", config, val=corpus[2])
    assert status == 0
    assert json.loads((folder / "history.jsonl").read_text())["val_ccc"] == 0.0
    assert run_prediction(corpus, folder / "model.safetensors", corpus[3], tmp_path / "p.h5") == 0
    _, label = statistics_module.read_statistics(folder / "statistics.h5")
    with h5py.File(tmp_path / "p.h5") as f:
        np.testing.assert_allclose(f["009/subjectPos2/engagement"][()], label["mean"], rtol=1e-6)


def test_the_mlp_sees_one_frame_of_one_person(corpus, tmp_path):
    config = {"preset": "demo", "features": ["egemaps"], "model": {"name": "mlp"}}
    config["training"] = FEW["training"]
    status, folder = run_training(corpus, tmp_path / "run", config)
    assert status == 0
    trained = load_model(folder / "model.safetensors")
    w = Windows(corpus[0], parse_specs(corpus[2]), trained.settings, False)
    _, batch = next(w.in_order(0, 2))
    row = int(batch.target[0])
    score = trained.model(batch)["engagement"][0]
    batch.streams["egemaps"][row, 50] += 5
    batch.streams["egemaps"][1 - row] += 5
    changed = (trained.model(batch)["engagement"][0] - score).abs() > 1e-6
    assert changed.nonzero().flatten().tolist() == [50]


def test_da_mamba_learns_what_only_the_partner_shows(tmp_path):
    """The control knows the same frames but not the partners; labels are 40 % the partners'."""
    results = tmp_path / "results"
    train = write_corpus(results, 4, 20.0, seed=1)
    test = [write_session(results, "noxi", f"2{i:02d}", DYAD, 20.0, 9) for i in range(3)]
    corpus = (results, train, test, [])
    found = {}
    for name, model, partners in (
        ("partners", {}, "own"),
        ("none", {"partner_fusion": False}, "own"),
        ("shuffled", {}, "shuffled"),
    ):
        config = settings(**model, d=8, context_width=16, dropout=0.2)
        config["features"] = ["egemaps", "flow"]  # one shows the own latent, one the partner's
        config["training"] = {"epochs": 8, "batch": 16, "partners": partners}
        status, folder = run_training(corpus, tmp_path / name, config, val=test)
        assert status == 0
        last = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])
        found[name] = last["val_ccc"]
    print(found)
    assert found["partners"] > 0.75
    assert found["partners"] > found["none"] + 0.08
    assert found["partners"] > found["shuffled"] + 0.08


@pytest.mark.parametrize(
    "change, words",
    [
        ({"settings": {"preset": "demo", "modle": {}}}, ["modle", "model"]),
        ({"settings": "not json {"}, ["{"]),
        ({"train": ["noxi/404:expert"]}, ["404"]),
        ({"train": ["mpiigi/009:subjectPos1,subjectPos2,subjectPos3"]}, ["label"]),
        ({"statistics": "missing.h5"}, ["missing.h5"]),
        ({"statistics": "narrow"}, ["wav2vec2"]),
    ],
)
def test_bad_input_ends_with_a_cure_and_no_file(corpus, trained, tmp_path, capsys, change, words):
    results = corpus[0]
    statistics = trained / "statistics.h5"
    if change.get("statistics") == "narrow":
        statistics = tmp_path / "narrow.h5"
        shutil.copy(trained / "statistics.h5", statistics)
        with h5py.File(statistics, "r+") as f:
            del f["wav2vec2"]
    elif "statistics" in change:
        statistics = tmp_path / change["statistics"]
    text = change.get("settings", settings())
    text = text if isinstance(text, str) else json.dumps(text)
    argv = ["--settings", text, "--train", *change.get("train", corpus[1])]
    argv += ["--results", str(results), "--statistics", str(statistics)]
    argv += ["--out", str(tmp_path / "m.safetensors"), "--history", str(tmp_path / "h.jsonl")]
    capsys.readouterr()
    assert train_module.main([*argv, "--log", str(tmp_path / "log.txt")]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) <= 3 and "Traceback" not in error
    assert any(w in error for w in words), error
    assert not (tmp_path / "m.safetensors").exists() and not (tmp_path / "h.jsonl").exists()


def test_prediction_needs_one_dataset_and_a_sound_checkpoint(corpus, trained, tmp_path, capsys):
    both = [corpus[2][0], corpus[3][0]]
    out = tmp_path / "p.h5"
    assert run_prediction(corpus, trained / "model.safetensors", both, out) == 1
    broken = tmp_path / "m.safetensors"
    broken.write_bytes((trained / "model.safetensors").read_bytes()[:500])
    assert run_prediction(corpus, broken, corpus[3], out) == 1
    assert "rm '" in capsys.readouterr().err and not out.exists()


def training(**keys):
    return parse({"preset": "paper", "training": keys}).training


def test_schedules():
    t = training(schedule="cosine", learning_rate=5e-5, warmup_steps=500)
    rates = [learning_rate(t, s, 1000, 0) for s in range(1000)]
    assert rates[0] == pytest.approx(1e-7) and max(rates) == rates[499] == 5e-5
    assert rates[750] == pytest.approx(2.5e-5) and rates[-1] < 1e-9
    t = training(schedule="constant", learning_rate=1e-3, warmup_steps=4)
    assert [learning_rate(t, s, 10, 0) for s in range(10)] == pytest.approx(
        [2.5e-4, 5e-4, 7.5e-4] + 7 * [1e-3]
    )
    t = training(schedule="step", learning_rate=5e-4, warmup_steps=0, step_epochs=3)
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.Adam([parameter], lr=5e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(theirs, 3, 0.5)
    for epoch in range(10):
        assert learning_rate(t, 7 * epoch, 70, epoch) == pytest.approx(scheduler.get_last_lr()[0])
        theirs.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_weight_decay_of_the_optimisers(name):
    """One step of the closed form: Adam's first step is lr * sign-like g / (|g| + eps)."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(2.0)
    optimiser = make_optimiser(
        model, training(optimiser=name, learning_rate=0.1, weight_decay=0.25, warmup_steps=0)
    )
    model.weight.grad = torch.full((1, 1), -0.3)
    optimiser.step()
    # L2: gradient -0.3 + 0.25 * 2 = +0.2, so down; decoupled: 2 * (1 - 0.1 * 0.25), then up.
    expected = 2 - 0.1 if name == "adam" else 2 * (1 - 0.1 * 0.25) + 0.1
    assert model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_steps_instead_of_epochs(corpus, tmp_path):
    config = settings()
    config["training"] = FEW["training"] | {
        "steps": 7,
        "epochs": 1,
        "stride": 16,
        "warmup_steps": 0,
    }
    status, folder = run_training(corpus, tmp_path / "run", config)
    assert status == 0
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    windows = Windows(corpus[0], parse_specs(corpus[1]), parse(config), True, stride=16)
    per_epoch = windows.steps(1, 3)[0]
    assert per_epoch == 8 and [h["steps"] for h in history] == [7]
    config["training"]["steps"] = 11
    _, folder = run_training(corpus, tmp_path / "longer", config)
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [h["steps"] for h in history] == [8, 11]
    assert history[-1]["learning_rate"] < 1e-4  # the cosine ends with the steps
    # Sums over the 3 steps of the cut epoch are divided by 3, not by 8.
    assert history[1]["loss"] == pytest.approx(history[0]["loss"], rel=0.3)


def test_the_model_file_holds_all_that_prediction_needs(trained):
    tensors, metadata = load_tensors(trained / "model.safetensors")
    assert metadata["dims"] == DIMS and metadata["fingerprint"] == "f" and metadata["run"] == "a"
    assert parse(metadata["settings"]) == dataclasses.replace(parse(settings()))
    features, label = statistics_module.read_statistics(trained / "statistics.h5")
    np.testing.assert_allclose(
        tensors["encoder.streams.flow.input.normalise.mean"], features["flow"]["mean"], rtol=1e-6
    )
    assert tensors["label_std"].item() == pytest.approx(label["std"])
