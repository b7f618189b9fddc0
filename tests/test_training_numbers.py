"""What one step of training computes, against numbers that were worked out by hand."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from model.cost import conversation
from model.registry import build
from training.losses import ccc_loss
from training.optim import MovingAverage
from training.resume import State
from training.settings import parse
from training.train import optimise, read_losses

DIMS = {"egemaps": 5, "wav2vec2": 7}
torch.set_num_threads(1)


def naive_ccc(p: np.ndarray, t: np.ndarray) -> float:
    """Lin 1989, eq. 1, value by value."""
    n = len(p)
    mean_p, mean_t = sum(p) / n, sum(t) / n
    cross = sum((a - mean_p) * (b - mean_t) for a, b in zip(p, t, strict=True)) / n
    var_p = sum((a - mean_p) ** 2 for a in p) / n
    var_t = sum((b - mean_t) ** 2 for b in t) / n
    return 2 * cross / (var_p + var_t + (mean_p - mean_t) ** 2)


def test_a_shifted_prediction_loses_by_its_shift():
    """Variances 2/3, covariance 2/3, means 1 apart: CCC = (4/3) / (4/3 + 1) = 4/7."""
    p, t = torch.tensor([[0.0, 1.0, 2.0, 50.0]]), torch.tensor([[1.0, 2.0, 3.0, -50.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert ccc_loss(p, t, mask).item() == pytest.approx(3 / 7, abs=1e-6)


@pytest.mark.parametrize("final", ["0.75", "0.2"])
def test_moving_average(final):
    """Exact fractions; the decay is 2/11, 3/12, 4/13 ... until it has grown to the final one."""
    limit = Fraction(final)
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(8.0)
    average = MovingAverage(model, float(limit))
    expected = Fraction(8)
    for step in range(1, 40):
        model.weight.data.fill_(float(step))
        average.update(model)
        kept = min(limit, Fraction(1 + step, 10 + step))
        expected = kept * expected + (1 - kept) * step
        if step == 1:  # 2/11 of the start weight of 8 and 9/11 of 1, unless the decay ends at 1/5
            assert expected == Fraction(25, 11)
        assert average.weights["weight"].item() == pytest.approx(float(expected), rel=1e-5)
    if final == "0.75":  # a quarter of the last weight: the average follows 3 updates behind
        assert average.weights["weight"].item() == pytest.approx(39 - 3, abs=0.05)


def one_step(grad_clip: float, learning_rate: float = 0.5) -> tuple[State, dict, float]:
    """A step by plain gradient descent: state after it, outputs before it, norm of the change."""
    config = {"preset": "demo", "features": list(DIMS), "training": {"grad_clip": grad_clip}}
    settings = parse(config | {"model": {"name": "da_mamba", "d": 8}})
    torch.manual_seed(0)
    model = build(settings, DIMS, ("noxi",) if settings.model.prompts else ())
    state = State(model, MovingAverage(model, 0.9), torch.optim.SGD(model.parameters(), lr=1.0))
    batch = conversation(DIMS, 4, 2, settings.training.window)
    torch.manual_seed(1)  # the same dropout here and in the step
    with torch.no_grad():
        out = model.train()(batch)["engagement"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(1)
    optimise(state, batch, settings, learning_rate)
    moved = [(p.detach() - before[n]).flatten() for n, p in model.named_parameters()]
    read_losses(state)
    return state, {"engagement": out, "batch": batch}, torch.cat(moved).norm().item()


def test_a_step_is_as_long_as_the_clipped_gradient():
    free = one_step(1e9)[2]
    assert free > 0.05
    assert one_step(0.01)[2] == pytest.approx(0.5 * 0.01, rel=1e-3)  # learning rate x grad_clip
    assert one_step(1e9, 0.25)[2] == pytest.approx(free / 2, rel=1e-3)


def test_the_loss_of_a_step_is_one_minus_the_ccc_of_its_frames():
    state, made, _ = one_step(1e9)
    batch, mask = made["batch"], made["batch"].label_mask
    p, t = (x[mask].double().numpy() for x in (made["engagement"], batch.label))
    assert abs(p.mean() - t.mean()) > 0.1  # else the term of the means would not show
    assert state.sums["score"] == pytest.approx(1 - naive_ccc(p, t), abs=1e-5)
