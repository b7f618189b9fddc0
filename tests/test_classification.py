"""Classification: cross-entropy, Cohen's kappa, class labels from the file to the prediction."""

import json

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aligned_files import probe_record
from model_data import DIMS, DYAD, write_corpus, write_session
from sklearn.metrics import cohen_kappa_score

from alignment import labels
from evaluation import score as score_module
from formats.label_csv import read_labels
from inference import predict as predict_module
from model.batch import Batch
from runtime import InputError
from store import layout
from store.features import read_features
from store.session_spec import parse_spec
from training import statistics as statistics_module
from training import train as train_module
from training.config import TrainingConfig
from training.losses import cohen_kappa, cross_entropy_loss, score_losses
from training.model_file import load_model
from training.sessions import SessionReader, labels_on_grid
from training.settings import parse

torch.set_num_threads(1)
CLASSES = 3
FEATURES = ["egemaps", "flow"]


@pytest.mark.parametrize("seed", range(5))
def test_kappa_equals_sklearn(seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, (5, 40))
    prediction = np.where(rng.random((5, 40)) < 0.2 * seed, label, rng.integers(0, 3, (5, 40)))
    mask = rng.random((5, 40)) < 0.7
    expected = cohen_kappa_score(prediction[mask], label[mask])
    tensors = (torch.from_numpy(x) for x in (prediction.astype(float), label.astype(float), mask))
    assert float(cohen_kappa(*tensors)) == pytest.approx(expected, abs=1e-12)


def test_kappa_where_it_is_not_defined():
    zeros, mask = torch.zeros(4), torch.ones(4, dtype=torch.bool)
    assert float(cohen_kappa(zeros, zeros, mask)) == 0.0  # chance alone agrees fully
    assert float(cohen_kappa(zeros, zeros, ~mask)) == 0.0
    assert float(cohen_kappa(torch.tensor([0.0, 1, 2, 1]), torch.tensor([0.0, 1, 2, 1]), mask)) == 1


def test_cross_entropy_counts_labelled_frames_only():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 4, generator=g, requires_grad=True)
    label = torch.randint(0, 4, (3, 7), generator=g).float()
    mask = torch.rand(3, 7, generator=g) > 0.4
    expected = F.cross_entropy(logits[mask], label[mask].long())
    garbage = torch.where(mask, label, 99.0)
    loss = cross_entropy_loss(logits, garbage, mask)
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert (logits.grad[~mask] == 0).all() and (logits.grad[mask] != 0).any()
    assert cross_entropy_loss(logits, label, torch.zeros_like(mask)).item() == 0.0


def test_smoothness_of_classes_is_that_of_their_probabilities():
    logits = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(1))
    frames = torch.ones(1, 5, dtype=torch.bool)
    target, partners = torch.tensor([0]), torch.empty(1, 0, dtype=torch.long)
    batch = Batch({}, {}, frames, target, partners, torch.zeros(1, 5), frames)
    training = TrainingConfig(score_loss="cross_entropy", smoothness_weight=0.1)
    out = {"engagement": logits.argmax(-1).float(), "logits": logits}
    p = np.exp(logits.numpy()[0]) / np.exp(logits.numpy()[0]).sum(1, keepdims=True)
    expected = np.mean(np.sum(np.diff(p, axis=0) ** 2, axis=1))
    assert score_losses(out, batch, training)["smoothness"].item() == pytest.approx(expected, 1e-5)


def test_the_task_chooses_the_loss():
    base = {"task": "classification", "classes": 3}
    settings = parse(base)
    assert settings.training.score_loss == "cross_entropy" and settings.outputs == 3
    assert parse(settings.canonical()) == settings
    assert parse({}).training.score_loss == "ccc"
    for wrong, words in (
        (base | {"training": {"score_loss": "ccc"}}, "score_loss"),
        ({"training": {"score_loss": "cross_entropy"}}, "score_loss"),
        (base | {"training": {"mse_weight": 0.1}}, "mse_weight"),
        ({"task": "classification"}, "classes"),
        ({"classes": 3}, "classes"),
    ):
        with pytest.raises(InputError, match=words):
            parse(wrong)


# ---- a run ---------------------------------------------------------------------------------


def to_classes(results, specs):
    """Labels of the corpus in three classes by fixed borders; their file on the label grid."""
    for text in specs:
        spec = parse_spec(text)
        for role in spec.roles:
            with h5py.File(layout.labels(results, *spec.key, role), "r+") as f:
                values = f["values"][...]
                f["values"][...] = np.digitize(values, [0.43, 0.57]).astype(values.dtype)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    results = tmp_path_factory.mktemp("classes")
    train = write_corpus(results, 3, 16.0, seed=1)
    val = [write_session(results, "noxi", "201", DYAD, 16.0, 9)]
    to_classes(results, [*train, *val])
    argv = ["--sessions", *train, "--features", *DIMS, "--results", str(results)]
    argv += ["--out", str(results / "s.h5"), "--log", str(results / "s.log")]
    assert statistics_module.main(argv) == 0
    return results, train, val


def run_training(corpus, folder, extra=(), classes=CLASSES, **model):
    results, train, val = corpus
    small = {"d": 8, "heads": 2, "context_width": 16, "state": 4, "dropout": 0.2}
    config = {"preset": "demo", "features": FEATURES, "model": small | model}
    config |= {"task": "classification", "classes": classes}
    config["training"] = {"epochs": 6, "batch": 16, "window": 48, "core": 16}
    config["training"] |= {"selection": "best_val", "validate_every": 2, "warmup_steps": 5}
    argv = ["--settings", json.dumps(config), "--train", *train, "--validate", *val]
    argv += ["--results", str(results), "--statistics", str(results / "s.h5"), "--seed", "3"]
    argv += ["--run", "a", "--out", str(folder / "m.safetensors")]
    argv += ["--history", str(folder / "h.jsonl"), "--log", str(folder / "log.txt")]
    return train_module.main([*argv, *extra])


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert run_training(corpus, folder) == 0
    return folder


def read_history(folder):
    return [json.loads(line) for line in (folder / "h.jsonl").read_text().splitlines()]


def test_classes_are_learned_and_the_best_epoch_is_kept(corpus, trained, tmp_path):
    """Labels follow the target's sound and the partner's picture; chance is a kappa of 0."""
    history = read_history(trained)
    assert [h["epoch"] for h in history if "val_kappa" in h] == [2, 4, 6]
    assert not any("val_ccc" in h for h in history)
    assert history[0]["score"] == pytest.approx(np.log(CLASSES), abs=0.3)
    best = max(h["val_kappa"] for h in history if "val_kappa" in h)
    assert best > 0.2
    results, _, val = corpus
    out = tmp_path / "p.h5"
    argv = ["--checkpoint", str(trained / "m.safetensors"), "--sessions", val[0] + "@val"]
    argv += ["--results", str(results), "--out", str(out), "--log", str(out) + ".log"]
    assert predict_module.main(argv) == 0
    truth, found = [], []
    with h5py.File(out) as f, SessionReader(results, parse_spec(val[0]), FEATURES, 25) as reader:
        assert f.attrs["classes"] == CLASSES
        for role in DYAD:
            person = f["201"][role]
            label, known = reader.labels(role)
            truth.append(label[known])
            found.append(person["engagement"][known])
            probability = person["probability"][()]
            assert probability.shape == (len(label), CLASSES)
            np.testing.assert_allclose(probability.sum(1), 1, atol=1e-5)
            assert (probability.argmax(1) == person["engagement"][()]).all()
    truth, found = np.concatenate(truth), np.concatenate(found)
    assert set(np.unique(found)) <= {0.0, 1.0, 2.0}
    assert cohen_kappa_score(truth, found) == pytest.approx(best, abs=1e-9)
    record = score_module.score(out, results, [val[0] + "@val"], None, [], tmp_path / "s/s.json")
    assert record["splits"]["val"]["kappa"] == pytest.approx(best, abs=1e-9)


def test_carried_predictions_hold_probabilities_too(corpus, trained, tmp_path):
    results, _, val = corpus
    out = tmp_path / "p.h5"
    argv = ["--checkpoint", str(trained / "m.safetensors"), "--sessions", val[0] + "@val"]
    argv += ["--results", str(results), "--out", str(out), "--mode", "carry"]
    assert predict_module.main([*argv, "--log", str(out) + ".log"]) == 0
    with h5py.File(out) as f:
        for role in DYAD:
            probability = f["201"][role]["probability"][()]
            np.testing.assert_allclose(probability.sum(1), 1, atol=1e-5)
            assert (probability.argmax(1) == f["201"][role]["engagement"][()]).all()


def test_labels_reach_training_as_whole_classes(corpus):
    results, train, _ = corpus
    spec = parse_spec(train[0])
    for rate in (25, 100, 12.5):
        with SessionReader(results, spec, FEATURES, rate) as reader:
            label, known = reader.labels("expert")
            assert set(np.unique(label[known])) == {0.0, 1.0, 2.0}


def test_resumed_training_keeps_the_best_epoch(corpus, trained, tmp_path, monkeypatch):
    extra = ["--checkpoint-dir", str(tmp_path / "cache"), "--save-every-s", "0"]
    optimise, calls = train_module.optimise, []
    after = read_history(trained)[3]["steps"]  # after the fourth epoch, which was validated

    def interrupted(*args):
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        calls.append(1)
        return optimise(*args)

    monkeypatch.setattr(train_module, "optimise", interrupted)
    assert run_training(corpus, tmp_path, extra) == 130
    monkeypatch.setattr(train_module, "optimise", optimise)
    assert run_training(corpus, tmp_path, extra) == 0
    for name in ("m.safetensors", "h.jsonl"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_controls_classify_too(corpus, tmp_path):
    results, train, val = corpus
    for name, kappa in (("mlp", 0.1), ("constant", 0.0)):
        folder = tmp_path / name
        folder.mkdir()
        config = {"preset": "demo", "features": FEATURES, "model": {"name": name}}
        config |= {"task": "classification", "classes": CLASSES, "training": {"epochs": 4}}
        argv = ["--settings", json.dumps(config), "--train", *train, "--validate", *val]
        argv += ["--results", str(results), "--statistics", str(results / "s.h5")]
        argv += ["--out", str(folder / "m.safetensors"), "--history", str(folder / "h.jsonl")]
        assert train_module.main([*argv, "--log", str(folder / "log.txt")]) == 0
        found = read_history(folder)[-1]["val_kappa"]
        assert found > kappa if kappa else found == 0.0
        assert load_model(folder / "m.safetensors").settings.outputs == CLASSES


def test_a_label_that_is_no_class_names_the_file(corpus, tmp_path, capsys):
    capsys.readouterr()
    assert run_training(corpus, tmp_path, classes=2) == 1
    error = capsys.readouterr().err
    assert "labels/noxi/" in error and "label 2" in error and "Traceback" not in error
    assert not (tmp_path / "m.safetensors").exists()


# ---- from the label file -------------------------------------------------------------------

WORDS = ["noplay", "aimless", "goaloriented"]


def test_words_become_classes_and_reach_the_grid_unchanged(tmp_path):
    """30 labels a second, as in PInSoRo, on a grid of 25 frames: nearest, never between classes."""
    rng = np.random.default_rng(0)
    index = rng.integers(0, 3, 120)
    lines = [WORDS[i] for i in index]
    lines[10] = lines[11] = ""  # raters disagree
    csv = tmp_path / "purple.task_engagement.annotation.csv"
    csv.write_text("\n".join(lines) + "\n")
    out = tmp_path / "labels.h5"
    counts = labels.convert(csv, out, probe_record(duration_s=4.0), 30.0, classes=WORDS)
    assert counts == {"rows": 120, "missing": 2}
    stored = read_features(out)
    assert list(stored.attributes["classes"]) == WORDS
    np.testing.assert_array_equal(stored.values[stored.valid, 0], np.delete(index, [10, 11]))
    times = np.arange(100) / 25
    value, known = labels_on_grid(out, times)
    nearest = np.abs(np.arange(120) / 30 - times[:, None]).argmin(1)
    np.testing.assert_array_equal(known, ~np.isin(nearest, [10, 11]))
    np.testing.assert_array_equal(value[known], index[nearest][known])


def test_a_word_that_is_no_class_is_told_with_its_line(tmp_path):
    csv = tmp_path / "l.csv"
    csv.write_text("noplay\nplay\n")
    with pytest.raises(InputError) as error:
        read_labels(csv, WORDS)
    assert "line 2: 'play'" in error.value.problem and "goaloriented" in error.value.problem
    csv.write_text("0\n1\n\n2\n")
    np.testing.assert_array_equal(read_labels(csv, ["0", "1", "2"]), [0, 1, np.nan, 2])
    with pytest.raises(InputError, match="outside 0..1"):
        read_labels(csv)
