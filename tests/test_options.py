"""Options open to every model: auxiliary losses, clipped inputs."""

import json

import numpy as np
import pytest
import torch
from model_data import DIMS, write_corpus, write_session

from model.batch import Batch
from model.configs import model_names
from model.registry import build
from training import statistics as statistics_module
from training import train as train_module
from training.config import TrainingConfig
from training.losses import score_losses, smoothness_loss
from training.settings import parse

torch.set_num_threads(1)
FEATURES = ["egemaps", "flow"]
SMALL = {"da_mamba": {"d": 8, "heads": 2, "context_width": 8, "state": 4}, "mlp": {"hidden": 16}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    results = tmp_path_factory.mktemp("options")
    train = write_corpus(results, 2, 9.0)
    val = [write_session(results, "noxi", "101", ("expert", "novice"), 6.0, 1)]
    argv = ["--sessions", *train, "--features", *DIMS, "--results", str(results)]
    argv += ["--out", str(results / "s.h5"), "--log", str(results / "s.log")]
    assert statistics_module.main(argv) == 0
    return results, train, val


def run_training(corpus, folder, model, training, extra=()):
    results, train, val = corpus
    config = {"preset": "demo", "features": FEATURES, "training": {"epochs": 3, "batch": 8}}
    config["model"] = {"name": "mlp", "input_shift": 0.0} | SMALL[model.get("name", "mlp")] | model
    config["training"] |= training
    argv = ["--settings", json.dumps(config), "--train", *train, "--validate", *val]
    argv += ["--results", str(results), "--statistics", str(results / "s.h5"), "--seed", "3"]
    argv += ["--out", str(folder / "m.safetensors"), "--history", str(folder / "h.jsonl")]
    assert train_module.main([*argv, "--log", str(folder / "log.txt"), *extra]) == 0
    return [json.loads(line) for line in (folder / "h.jsonl").read_text().splitlines()]


def test_smoothness_is_the_mean_squared_step_inside_the_recording():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((4, 9))
    frames = np.ones((4, 9), bool)
    frames[0, :3] = frames[1, 5:] = frames[2] = False
    frames[3, 4] = False
    steps = [
        (y[b, t + 1] - y[b, t]) ** 2
        for b in range(4)
        for t in range(8)
        if frames[b, t] and frames[b, t + 1]
    ]
    prediction = torch.tensor(y, requires_grad=True)
    loss = smoothness_loss(prediction, torch.from_numpy(frames))
    assert loss.item() == pytest.approx(np.mean(steps))
    loss.backward()
    assert (prediction.grad[2] == 0).all() and torch.isfinite(prediction.grad).all()
    two = torch.tensor(np.stack([y, 2 * y], -1))
    assert smoothness_loss(two, torch.from_numpy(frames)).item() == pytest.approx(
        5 * np.mean(steps)
    )
    assert smoothness_loss(prediction, torch.zeros(4, 9, dtype=torch.bool)).item() == 0.0


def test_auxiliary_losses_are_those_of_the_batch_and_absent_at_weight_zero():
    g = torch.Generator().manual_seed(0)
    label, mask = torch.rand(2, 6, generator=g), torch.rand(2, 6, generator=g) > 0.4
    frames = torch.ones(3, 6, dtype=torch.bool)
    frames[2, :2] = False
    batch = Batch({}, {}, frames, torch.tensor([2, 0]), torch.empty(2, 0), label, mask)
    y = torch.rand(2, 6, generator=g)
    found = score_losses(
        {"engagement": y}, batch, TrainingConfig(mse_weight=0.3, smoothness_weight=0.05)
    )
    assert found["mse"].item() == pytest.approx(((y - label)[mask] ** 2).mean().item())
    steps = torch.cat([y[0, 2:].diff() ** 2, y[1].diff() ** 2])
    assert found["smoothness"].item() == pytest.approx(steps.mean().item())
    assert list(score_losses({"engagement": y}, batch, TrainingConfig())) == ["score"]


def test_auxiliary_losses_train_and_show_in_the_history(corpus, tmp_path):
    histories = {}
    for name, training in {
        "none": {},
        "zero": {"mse_weight": 0.0, "smoothness_weight": 0.0},
        "both": {"mse_weight": 0.3, "smoothness_weight": 100.0},
        "hardly": {"smoothness_weight": 1e-3},
    }.items():
        (tmp_path / name).mkdir()
        histories[name] = run_training(corpus, tmp_path / name, {}, training)
    none, zero = ((tmp_path / n / "m.safetensors").read_bytes() for n in ("none", "zero"))
    assert none == zero and histories["none"] == histories["zero"]
    assert not {"mse", "smoothness"} & set(histories["none"][0])
    for h in histories["both"]:
        total = h["score"] + 0.3 * h["mse"] + 100 * h["smoothness"]
        assert h["loss"] == pytest.approx(total, rel=1e-5)
    assert histories["both"][-1]["smoothness"] < 0.5 * histories["hardly"][-1]["smoothness"]


@pytest.mark.parametrize("name", model_names())
def test_inputs_are_clipped_at_the_set_number_of_standard_deviations(name):
    """Whatever lies beyond the limit counts as the limit; what lies inside is not touched."""
    torch.manual_seed(0)
    features = {"egemaps": 5, "clip_face": 4}
    settings = {"preset": "demo", "features": list(features)}
    settings |= {"model": {"name": name, "input_clip": 2.0}, "training": {"window": 24, "core": 8}}
    model = build(parse(settings), features).eval()
    statistics = {
        n: {"mean": torch.linspace(-3, 3, d), "std": torch.linspace(0.5, 4, d)}
        for n, d in features.items()
    }
    model.load_statistics(statistics, {"mean": 0.5, "std": 0.1})

    def score(z):
        streams = {n: z[n] * s["std"] + s["mean"] for n, s in statistics.items()}
        ones = torch.ones(2, 24, dtype=torch.bool)
        valid = dict.fromkeys(streams, ones)
        partners = torch.tensor([[1], [0]])
        with torch.no_grad():
            return model(Batch(streams, valid, ones, torch.tensor([0, 1]), partners))["engagement"]

    z = {n: 2 * torch.randn(2, 24, d) for n, d in features.items()}
    wild = {n: torch.where(v.abs() > 2, 1e4 * v, v) for n, v in z.items()}
    clipped = {n: v.clamp(-2, 2) for n, v in z.items()}
    assert torch.allclose(score(wild), score(clipped), atol=1e-5)
    inside = {n: 0.5 * v * v.abs() for n, v in clipped.items()}  # not a mere scale: LayerNorm
    if list(model.parameters()):
        assert not torch.allclose(score(inside), score(clipped), atol=1e-5)
