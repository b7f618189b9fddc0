"""Costs of models against closed forms; every model and preset in one listing."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model.__main__ import main
from model.configs import model_names
from model.cost import SCAN_FLOPS, conversation, count_flops, inference, peak_bytes
from model.describe import PAPER_DIMS, describe, describe_all
from model.layers.coupled import StateCoupling
from model.layers.mamba import MambaBlock
from model.registry import build, count_parameters
from runtime import InputError
from training.settings import parse
from training.step import training_step

torch.set_num_threads(1)  # small tensors: threads only wait for each other

SMALL = {"egemaps": 5, "wav2vec2": 7, "clip_face": 6, "flow": 4, "flow_magnitude": 3}
SMALL_TEXT = ",".join(f"{k}={v}" for k, v in SMALL.items())
MB = 1 << 20


def flops(module, *given):
    return count_flops(module, lambda: module(*given))


def test_products_of_linear_layers_are_two_per_weight_and_row():
    net = nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 3))
    assert flops(net, torch.randn(4, 5, 7)) == 2 * 4 * 5 * (7 * 11 + 11 * 3)
    conv = nn.Conv1d(6, 8, 3, padding=1, groups=2)
    assert flops(conv, torch.randn(2, 6, 10)) == 2 * 2 * 10 * 8 * 3 * 3


def test_the_mlp_has_the_flops_of_its_weights():
    settings = parse({"preset": "demo", "features": list(SMALL), "model": {"name": "mlp"}})
    model = build(settings, SMALL)
    batch = conversation(SMALL, 2, 2, 10)
    weights = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2)
    per_frame = count_flops(model, inference(model, batch)) / (2 * 10)
    assert per_frame == 2 * weights


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
def test_a_scan_counts_by_its_rule_whichever_engine_runs_it(backend):
    block = MambaBlock(8, 4, expand=2, backend=backend)
    frames, D, N = 3 * 20, 16, 4
    products = sum(
        m.weight.numel() for m in (block.in_proj, block.x_proj, block.dt_proj, block.out_proj)
    )
    wanted = frames * (2 * products + SCAN_FLOPS * D * N)
    assert flops(block, torch.randn(3, 20, 8)) == wanted
    coupled = StateCoupling({"audio": block}, roles=1, leaky=False)
    x, ones = torch.randn(3, 1, 20, 8), torch.ones(3, 1, 20, dtype=torch.bool)
    assert flops(coupled, {"audio": x}, ones, ones.unsqueeze(2)) == wanted


def test_recurrent_cells_and_attention():
    lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
    assert flops(lstm, torch.randn(2, 9, 5)) == 2 * 18 * 2 * (4 * 6 * (5 + 6) + 4 * 6 * (12 + 6))

    class Attend(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v)

    q, k = torch.randn(2, 3, 10, 4), torch.randn(2, 3, 12, 4)
    assert flops(Attend(), q, k, k) == 2 * (2 * 3 * 10 * 12 * 4) * 2


def test_counting_leaves_nothing_behind():
    block = MambaBlock(8, 4)
    before = torch.autograd.Function.apply
    flops(block, torch.randn(1, 5, 8))
    assert torch.autograd.Function.apply == before
    assert not block.x_proj._forward_pre_hooks


def test_peak_memory_is_the_most_held_at_one_time():
    def run():
        a = torch.zeros(4 * MB // 4)
        b = torch.zeros(2 * MB // 4)
        del a
        c = torch.zeros(MB // 4)
        return b, c

    assert peak_bytes(run) == pytest.approx(6 * MB, rel=1e-3)


def test_training_memory_of_a_stack_of_linear_layers():
    """Every ReLU keeps its output for the backward pass: depth times (rows, width) floats."""
    width, rows, depth = 64, 4096, 6
    layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)]
    net, x = nn.Sequential(*layers), torch.randn(rows, width)
    net(x).sum().backward()  # gradients exist
    kept = peak_bytes(lambda: net(x).sum().backward()) / (4 * rows * width)
    assert depth < kept < depth + 4


def test_memory_and_flops_grow_with_the_batch():
    settings = parse({"preset": "demo", "features": list(SMALL)})
    model = build(settings, SMALL)
    costs = []
    for windows in (2, 4, 8):
        step = training_step(model, settings, conversation(SMALL, 2, windows, 96))
        step()
        costs.append(peak_bytes(step))
    assert costs[1] / costs[0] == pytest.approx(2, rel=0.15)
    assert costs[2] / costs[1] == pytest.approx(2, rel=0.15)


def test_conversations_of_any_size():
    batch = conversation(SMALL, 3, 4, 5)
    assert batch.frames.shape == (6, 5)
    assert batch.target.tolist() == [0, 1, 2, 3]
    assert batch.partners.tolist() == [[1, 2], [2, 0], [0, 1], [4, 5]]


def test_a_training_step_moves_the_weights_of_every_model():
    for name in model_names():
        settings = parse({"preset": "demo", "features": list(SMALL), "model": {"name": name}})
        model = build(settings, SMALL)
        before = [p.clone() for p in model.parameters()]
        training_step(model, settings, conversation(SMALL, 2, 2, settings.training.window))()
        moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
        assert any(moved) or not before, name


def test_the_listing_has_every_model_and_preset(capsys):
    text = "\n".join(describe_all(SMALL_TEXT, ["mlp", "constant"]))
    for name in ("mlp", "constant"):
        for preset in ("paper", "demo"):
            assert f"{name}, preset {preset}" in text
    total = count_parameters(build(parse({"model": {"name": "mlp"}}), SMALL))["total"]
    assert f"{total:,d}" in text and "GFLOP" in text
    assert main(["describe", "--dims", SMALL_TEXT, "--settings", '{"preset": "demo"}']) == 0
    assert "da_mamba" in capsys.readouterr().out


def test_published_variants_are_listed_with_their_sizes():
    """DAT's three: M is the paper preset; sizes as counted from its published code."""
    text = "\n".join(describe_all(PAPER_DIMS, ["dat"]))
    totals = [line.split()[1] for line in text.splitlines() if line.startswith("  total")]
    assert [totals[0], *totals[2:]] == ["66,790,581", "113,981,621", "32,163,419"]
    assert "dat, variant L" in text and "dat, variant mpiigi" in text


@pytest.mark.parametrize(
    "settings, dims, words",
    [
        ('{"preset"', SMALL_TEXT, "not readable"),
        ("{}", "egemaps=5", "names no wav2vec2"),
        ("{}", "egemaps", "not readable"),
        ("{}", SMALL_TEXT.replace("=5", "=0"), "below 1"),
    ],
)
def test_what_cannot_be_described_says_why(settings, dims, words):
    with pytest.raises(InputError, match=words):
        describe(settings, dims)
