"""Losses and the optimiser's parts against sums written out frame by frame, and sklearn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, log_loss
from torch import nn

from training import losses
from training.config import TrainingConfig
from training.optim import MovingAverage, learning_rate, make_optimiser, parameter_groups

RNG = np.random.default_rng(3)
P, T = RNG.normal(0.4, 0.2, (3, 17)), RNG.normal(0.6, 0.3, (3, 17))
MASK = RNG.random((3, 17)) < 0.7


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(a)) for a in arrays]


def lin(p, t):
    """Lin 1989, eq. 1, by numpy's population moments."""
    return (
        2
        * np.mean((p - p.mean()) * (t - t.mean()))
        / (p.var() + t.var() + (p.mean() - t.mean()) ** 2)
    )


def test_ccc_counts_masked_frames_only():
    p, t = P.copy(), T.copy()
    p[~MASK], t[~MASK] = np.nan, 1e6  # what stands outside the mask reaches nothing
    found = losses.ccc(*tensors(p, t, MASK)).item()
    assert found == pytest.approx(lin(P[MASK], T[MASK]), abs=1e-7)
    assert losses.ccc_loss(*tensors(p, t, MASK)).item() == pytest.approx(1 - found, abs=1e-12)


def test_ccc_of_frames_that_lie_apart():
    """`total` is asked for counts and means first, then for the moments around them."""
    parts = [tensors(P[:1], T[:1], MASK[:1]), tensors(P[1:], T[1:], MASK[1:])]
    asked = []

    def both(mine):
        asked.append(mine)
        if len(asked) == 1:
            p, t, mask = parts[1]
            return mine + torch.stack([mask.double().sum(), (p * mask).sum(), (t * mask).sum()])
        mean_p, mean_t = P[MASK].mean(), T[MASK].mean()
        p, t, mask = parts[1]
        dp, dt = (p - mean_p) * mask, (t - mean_t) * mask
        return mine + torch.stack([(dp * dt).sum(), (dp**2).sum(), (dt**2).sum()])

    assert losses.ccc(*parts[0], both).item() == pytest.approx(lin(P[MASK], T[MASK]), abs=1e-7)


@pytest.mark.parametrize(
    ("p", "mask"),
    [
        (np.full((1, 4), 0.3), [[True] * 4]),
        (P[:1, :4], [[False] * 4]),
        (P[:1, :4], [[True] + [False] * 3]),
    ],
    ids=["constant", "no frame", "one frame"],
)
def test_what_has_no_spread_scores_zero_with_a_finite_gradient(p, mask):
    prediction = torch.tensor(p, requires_grad=True)
    score = losses.ccc(prediction, torch.tensor(T[:1, :4]), torch.tensor(mask))
    score.backward()
    assert score.item() == pytest.approx(0.0, abs=1e-9) and torch.isfinite(prediction.grad).all()


def test_the_smallest_usable_spread_is_not_drowned():
    """Labels of a spread of 1 % of the scale, predicted perfectly: 2 v / (2 v + 1e-8), v = 1e-4."""
    t = torch.tensor([[0.49, 0.51, 0.49, 0.51]], dtype=torch.float64)
    found = losses.ccc(t, t, torch.ones_like(t, dtype=torch.bool)).item()
    assert found == pytest.approx(1 / (1 + 1e-8 / 2e-4), abs=1e-9)


def test_the_score_has_the_type_of_the_prediction():
    p, t, mask = tensors(P.astype(np.float32), T, MASK)
    asked = []
    losses.ccc(p, t, mask, lambda mine: asked.append(mine.dtype) or mine)
    assert asked == [torch.float32, torch.float32]
    assert losses.ccc(p, t, mask).dtype == torch.float32
    assert losses.ccc(t, p, mask).dtype == torch.float64


def test_the_loss_of_a_batch_is_that_of_all_processes(monkeypatch):
    asked = []
    monkeypatch.setattr(losses, "total", lambda mine: asked.append(mine) or mine)
    losses.ccc_loss(*tensors(P, T, MASK))
    assert [len(mine) for mine in asked] == [3, 3]


def test_mse_is_the_mean_over_masked_frames():
    found = losses.mse_loss(*tensors(P, T, MASK)).item()
    assert found == pytest.approx(np.mean((P[MASK] - T[MASK]) ** 2), abs=1e-9)
    assert losses.mse_loss(*tensors(P, T, np.zeros_like(MASK))).item() == 0.0


@pytest.mark.parametrize("classes", [0, 4])
def test_smoothness_is_the_mean_squared_step_between_neighbours(classes):
    p = RNG.normal(size=(3, 17, classes) if classes else (3, 17))
    total, n = 0.0, 0
    for b in range(3):
        for frame in range(1, 17):
            if MASK[b, frame] and MASK[b, frame - 1]:
                total, n = total + float(((p[b, frame] - p[b, frame - 1]) ** 2).sum()), n + 1
    assert losses.smoothness_loss(*tensors(p, MASK)).item() == pytest.approx(total / n, abs=1e-9)
    assert losses.smoothness_loss(*tensors(p, np.zeros_like(MASK))).item() == 0.0


def test_cross_entropy_against_sklearn():
    logits, label = RNG.normal(size=(3, 17, 4)), RNG.integers(0, 4, (3, 17)).astype(float)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = log_loss(label[MASK], shares[MASK], labels=range(4))
    label[~MASK] = np.nan
    found = losses.cross_entropy_loss(*tensors(logits, label, MASK)).item()
    assert found == pytest.approx(expected, abs=1e-7)


def test_kappa_against_sklearn():
    p, t = (RNG.integers(0, 4, (3, 17)).astype(float) for _ in range(2))
    p[0] = t[0]
    found = losses.cohen_kappa(*tensors(p, t, MASK)).item()
    assert found == pytest.approx(cohen_kappa_score(p[MASK], t[MASK]), abs=1e-12)


def test_kappa_without_disagreement_by_chance_is_zero():
    ones, none = torch.ones(1, 5), torch.zeros(1, 5, dtype=torch.bool)
    assert losses.cohen_kappa(ones, ones, ~none).item() == 0.0
    assert losses.cohen_kappa(ones, ones, none).item() == 0.0
    assert losses.cohen_kappa(ones[:, :1], ones[:, :1], ~none[:, :1]).item() == 0.0


class Case:
    """A batch as far as `score_losses` reads it: three rows, of which two are targets."""

    label, label_mask = torch.from_numpy(T[:2]), torch.from_numpy(MASK[:2])
    frames, target = torch.from_numpy(MASK), torch.tensor([2, 0])


def test_losses_of_a_prediction_are_those_that_weigh():
    out = {"engagement": torch.from_numpy(P[:2])}
    plain = losses.score_losses(out, Case, TrainingConfig(mse_weight=0.0, smoothness_weight=0.0))
    assert list(plain) == ["score"]
    assert plain["score"].item() == pytest.approx(
        1 - lin(P[:2][MASK[:2]], T[:2][MASK[:2]]), abs=1e-7
    )
    both = losses.score_losses(out, Case, TrainingConfig(mse_weight=0.5, smoothness_weight=2.0))
    assert list(both) == ["score", "mse", "smoothness"]
    assert both["mse"].item() == pytest.approx(np.mean((P[:2] - T[:2])[MASK[:2]] ** 2), abs=1e-9)
    rows = torch.from_numpy(MASK[[2, 0]])  # frames of the targets, not of the first rows
    expected = losses.smoothness_loss(out["engagement"], rows).item()
    assert both["smoothness"].item() == pytest.approx(expected, abs=1e-12)
    assert both["score"].item() == plain["score"].item()


def test_losses_of_classes_smooth_their_shares():
    logits = torch.from_numpy(RNG.normal(size=(2, 17, 3)))
    case = type("Classes", (Case,), {"label": torch.ones(2, 17, dtype=torch.float64)})
    training = TrainingConfig(score_loss="cross_entropy", mse_weight=0.0, smoothness_weight=1.0)
    found = losses.score_losses({"engagement": logits[..., 0], "logits": logits}, case, training)
    assert list(found) == ["score", "smoothness"]
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(-1, keepdims=True)
    assert found["score"].item() == pytest.approx(-np.log(shares[MASK[:2]][:, 1]).mean(), abs=1e-7)
    expected = losses.smoothness_loss(torch.from_numpy(shares), Case.frames[Case.target]).item()
    assert found["smoothness"].item() == pytest.approx(expected, abs=1e-7)


# Optimiser


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.A_log = nn.Parameter(torch.ones(2, 2))
        prompts = nn.ParameterDict({"prompt": nn.Parameter(torch.ones(2, 2))})
        self.inner = nn.ModuleDict({"first": prompts})


def test_matrices_decay_and_nothing_else():
    model = Named()
    decay, free = parameter_groups(model, 0.3)
    assert decay["weight_decay"] == 0.3 and free["weight_decay"] == 0.0
    assert [p.shape for p in decay["params"]] == [(2, 3)]
    assert len(free["params"]) == 5  # two biases, the norm's weight, A_log, prompt
    only = parameter_groups(nn.Linear(3, 2, bias=False), 0.3)
    assert len(only) == 1 and only[0]["weight_decay"] == 0.3


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_the_optimiser_of_a_run(name, kind):
    made = make_optimiser(
        Named(), TrainingConfig(optimiser=name, learning_rate=0.02, weight_decay=0.1)
    )
    assert type(made) is kind
    assert [(g["lr"], g["weight_decay"]) for g in made.param_groups] == [(0.02, 0.1), (0.02, 0.0)]
    assert make_optimiser(nn.Identity(), TrainingConfig(optimiser=name)) is None


def rates(total=13, steps_an_epoch=3, **settings):
    t = TrainingConfig(learning_rate=0.8, **settings)
    return [learning_rate(t, step, total, step // steps_an_epoch) for step in range(total + 1)]


def test_warm_up_is_linear_and_ends_at_the_rate():
    assert rates(warmup_steps=4, schedule="constant") == pytest.approx([0.2, 0.4, 0.6] + [0.8] * 11)
    assert rates(warmup_steps=0, schedule="constant") == [0.8] * 14


def test_cosine_falls_from_the_rate_to_zero_and_stays():
    found = rates(warmup_steps=3, schedule="cosine")
    assert found[3] == 0.8 and found[8] == pytest.approx(0.4) and found[13] == pytest.approx(0)
    assert found[5] == pytest.approx(0.8 * (1 + math.cos(math.pi * 0.2)) / 2)
    t = TrainingConfig(learning_rate=0.8, warmup_steps=3, schedule="cosine")
    assert learning_rate(t, 20, 13, 9) == pytest.approx(0)  # beyond the end
    assert learning_rate(t, 3, 3, 0) == 0.8  # warm-up alone


def test_steps_of_epochs():
    found = rates(warmup_steps=0, schedule="step", step_gamma=0.5, step_epochs=2)
    assert found == pytest.approx([0.8] * 6 + [0.4] * 6 + [0.2] * 2)


def test_the_average_holds_buffers_too_and_does_not_follow_in_place_changes():
    model = nn.BatchNorm1d(2)
    average = MovingAverage(model, 0.5)
    assert average.updates == 0
    with torch.no_grad():
        model.weight.fill_(9.0)
    model.running_mean.fill_(4.0)
    state = average.state(model)
    assert set(state) == set(model.state_dict())
    assert state["weight"].tolist() == [1.0, 1.0] and state["running_mean"].tolist() == [4.0, 4.0]
    average.update(model)
    assert average.updates == 1
    assert not average.weights["weight"].requires_grad and not state["running_mean"].requires_grad
