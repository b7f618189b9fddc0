"""bf16 training: what runs in bf16, what stays in fp32, and that it learns as fp32 does."""

import dataclasses

import pytest
import torch
from model_data import DIMS, write_corpus

from model.layers import mamba as mamba_module
from model.layers.alignment_loss import alignment_loss
from model.layers.mamba import MambaBlock
from model.precision import autocast
from store.session_spec import parse_specs
from training import statistics as statistics_module
from training.losses import ccc, cross_entropy_loss
from training.settings import parse
from training.train import train

torch.set_num_threads(1)
CPU = torch.device("cpu")


def test_losses_are_fp32_inside_autocast():
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 20, 8).bfloat16()
    mask = torch.rand(3, 20) < 0.8
    logits, label = torch.randn(3, 20, 4).bfloat16(), torch.randint(4, (3, 20)).float()
    score = torch.randn(3, 20).bfloat16()
    outside = [
        alignment_loss(a.float(), b.float(), mask),
        cross_entropy_loss(logits.float(), label, mask),
        ccc(score.float(), label, mask),
    ]
    with autocast("bf16", CPU):
        assert torch.matmul(a[0], a[0].T).dtype == torch.bfloat16  # the context is on
        inside = [
            alignment_loss(a, b, mask),
            cross_entropy_loss(logits, label, mask),
            ccc(score, label, mask=mask),
        ]
    for x, y in zip(inside, outside, strict=True):
        assert x.dtype == torch.float32 and torch.equal(x, y)


def test_the_scan_and_its_step_are_fp32_inside_autocast(monkeypatch):
    """Delta of a bf16 projection would be wrong by 1 % and more, see model.precision."""
    torch.manual_seed(0)
    block = MambaBlock(32, 8)
    x = torch.randn(4, 60, 32)
    seen = {}

    def spy(u, dt, A, *rest, **options):
        seen.update(dt=dt, A=A)
        return scan(u, dt, A, *rest, **options)

    scan = mamba_module.selective_scan
    monkeypatch.setattr(mamba_module, "selective_scan", spy)
    exact = block(x)
    dt = seen["dt"]
    with autocast("bf16", CPU):
        rounded = block(x)
    assert rounded.dtype == torch.bfloat16 and seen["dt"].dtype == seen["A"].dtype == torch.float32
    error = ((seen["dt"] - dt).abs() / dt).max()
    naive = torch.nn.functional.softplus(torch.log(torch.expm1(dt)).bfloat16().float())
    assert error < 0.25 * ((naive - dt).abs() / dt).max()
    assert (rounded - exact).abs().max() < 0.02 * exact.abs().max()
    # The scan itself, given the same bf16 input, is what it is without autocast.
    u, B, C = torch.randn(2, 40, 6), torch.randn(2, 40, 3), torch.randn(2, 40, 3)
    step, A = torch.rand(2, 40, 6), -torch.rand(6, 3)
    for backend in ("reference", "torch", "native"):
        with autocast("bf16", CPU):
            inside = scan(u, step, A, B, C, backend=backend)
        assert torch.equal(inside, scan(u, step, A, B, C, backend=backend))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    results = tmp_path_factory.mktemp("precision")
    specs = write_corpus(results, 3, 12.0)
    out = results / "statistics.h5"
    argv = ["--sessions", *specs, "--features", *DIMS, "--results", str(results)]
    assert statistics_module.main([*argv, "--out", str(out), "--log", str(out) + ".log"]) == 0
    return results, parse_specs(specs), out


@pytest.mark.parametrize("name", ["da_mamba", "coupled_mamba", "mlp"])
def test_bf16_training_goes_down_and_stays_near_fp32(corpus, name):
    results, specs, statistics = corpus
    config = {"preset": "demo", "features": list(DIMS), "model": {"name": name}}
    config["training"] = {"epochs": 5, "batch": 16, "warmup_steps": 0, "mse_weight": 1.0}
    scores, final = {}, {}
    for precision in ("fp32", "bf16"):
        settings = parse(config)
        settings = dataclasses.replace(
            settings,
            model=dataclasses.replace(settings.model, dropout=0.0),
            training=dataclasses.replace(settings.training, precision=precision),
        )
        weights, history, _, _ = train(settings, specs, [], results, statistics, 1)
        assert all(w.dtype == torch.float32 for w in weights.values())
        scores[precision] = [h["score"] for h in history]
        final[precision] = weights
    print(name, scores)
    assert scores["bf16"][-1] < 0.6 * scores["bf16"][0]
    assert scores["bf16"] != scores["fp32"]  # bf16 was on
    for low, high in zip(scores["bf16"], scores["fp32"], strict=True):
        assert low == pytest.approx(high, abs=0.05)
