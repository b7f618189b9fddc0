"""Relaxed transport and kernel distance of AlignMamba against loops, linear programs, sklearn."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.metrics.pairwise import rbf_kernel

from model.layers.kernel_distance import SAMPLE, median_variance, mmd, squared_distances
from model.layers.transport import (
    LocalAlignment,
    Packing,
    allowed_pairs,
    cosine_cost,
    deinterleave,
    hard_plan,
    interleave,
    relaxed_distance,
    soft_plan,
)

torch.set_num_threads(1)  # small tensors: threads only wait for each other


def tokens(*lengths, d=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    values = [torch.randn(n, d, generator=g, dtype=torch.float64) for n in lengths]
    return *values, *(torch.rand(n, generator=g) > 0.3 for n in lengths)


def cosine(a, b):
    return 1 - float(a @ b) / (float(a @ a) * float(b @ b)) ** 0.5


# ---- transport ------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("band", [0, 3])
@pytest.mark.parametrize("fill", ["zero", "nearest"])
@pytest.mark.parametrize("normalise", ["paper", "column"])
def test_transport_against_loops(normalise, fill, band, causal):
    x, y, sx, sy = tokens(9, 11)
    got, defined = LocalAlignment(normalise, fill, band, causal)(x, y, sx, sy)

    def may(i, j):
        near = not band or abs(i - j) <= band
        return bool(sx[i]) and bool(sy[j]) and near and (i <= j or not causal)

    received = {j: [] for j in range(11)}
    for i in range(9):
        best = np.inf
        for j in range(11):
            if may(i, j) and cosine(x[i], y[j]) < best:
                best = cosine(x[i], y[j])
                if causal:
                    received[j].append(i)  # the nearest so far
                else:
                    choice = j
        if not causal and best < np.inf:
            received[choice].append(i)
    for j in range(11):
        reachable = [i for i in range(9) if may(i, j)]
        assert bool(defined[j]) == bool(reachable)
        if not received[j] and reachable and fill == "nearest":
            received[j] = [min(reachable, key=lambda i: cosine(x[i], y[j]))]
        share = int(sx.sum()) if normalise == "paper" else max(1, len(received[j]))
        expected = sum((x[i] for i in received[j]), torch.zeros(6, dtype=x.dtype)) / share
        torch.testing.assert_close(got[j], expected, atol=1e-12, rtol=0)


def test_the_relaxed_problem_is_solved():
    for seed in range(5):
        x, y, sx, sy = tokens(5, 4, seed=seed)
        sx[0] = sy[0] = True
        x, y = x[sx], y[sy]
        n, m = len(x), len(y)
        C = np.array([[cosine(a, b) for b in y] for a in x])
        rows = np.kron(np.eye(n), np.ones(m))  # only the outgoing mass is fixed: 1 / n per token
        solved = linprog(C.ravel(), A_eq=rows, b_eq=np.full(n, 1 / n), bounds=(0, None))
        plan = solved.x.reshape(n, m)
        every = torch.ones(n, m, dtype=torch.bool)
        ours = hard_plan(cosine_cost(x, y), every) / n
        np.testing.assert_allclose(ours.numpy(), plan, atol=1e-9)
        there, _ = relaxed_distance(cosine_cost(x, y), every)
        back = linprog(
            C.T.ravel(),
            A_eq=np.kron(np.eye(m), np.ones(n)),
            b_eq=np.full(m, 1 / m),
            bounds=(0, None),
        )
        assert float(there) == pytest.approx((solved.fun + back.fun) / 2, abs=1e-9)


def test_soft_plan_against_loops_and_its_limit():
    x, y, sx, sy = tokens(7, 8)
    cost, allowed = cosine_cost(x, y), allowed_pairs(sx, sy)
    for causal in (False, True):
        allowed = allowed_pairs(sx, sy, causal=causal)
        got = soft_plan(cost, allowed, torch.tensor(0.3, dtype=torch.float64), causal)
        for i in range(7):
            for j in range(8):
                last = j if causal else 7
                total = sum(np.exp(-cost[i, k] / 0.3) for k in range(last + 1) if allowed[i, k])
                expected = float(np.exp(-cost[i, j] / 0.3) / total) if allowed[i, j] else 0.0
                assert float(got[i, j]) == pytest.approx(expected, abs=1e-9)
    allowed = allowed_pairs(sx, sy)
    cold = soft_plan(cost, allowed, torch.tensor(1e-4))
    torch.testing.assert_close(cold, hard_plan(cost, allowed), atol=1e-9, rtol=0)


@pytest.mark.parametrize("normalise", ["column", "soft"])
def test_a_causal_band_does_not_look_ahead(normalise):
    x, y, _, _ = tokens(12, 12)
    every = torch.ones(12, dtype=torch.bool)
    align = LocalAlignment(normalise, "nearest", 4, True)
    whole = align(x, y, every, every)[0]
    x2, y2 = x.clone(), y.clone()
    x2[8:], y2[8:] = torch.randn(4, 6).double(), torch.randn(4, 6).double()
    changed = align(x2, y2, every, every)[0]
    torch.testing.assert_close(changed[:8], whole[:8], atol=1e-12, rtol=0)
    assert not torch.allclose(changed[8:], whole[8:])
    free = LocalAlignment(normalise, "nearest", 4, False)
    assert not torch.allclose(free(x2, y2, every, every)[0][:8], free(x, y, every, every)[0][:8])


def test_dividing_by_the_length_shrinks_tokens():
    T, d = 96, 64
    x, y = (torch.nn.functional.layer_norm(t, (d,)) for t in torch.randn(2, 8, T, d))
    every = torch.ones(8, T, dtype=torch.bool)
    rms = {}
    for how in ("paper", "column"):
        moved, _ = LocalAlignment(how, "zero", 0, False)(x, y, every, every)
        rms[how] = moved.square().mean().sqrt() / y.square().mean().sqrt()
    assert 0.5 / T < rms["paper"] < 2 / T
    assert 0.4 < rms["column"] <= 1
    empty = (moved == 0).all(-1).float().mean()
    assert 0.2 < empty < 0.5  # 1/e of the anchors if sources chose at random
    filled, _ = LocalAlignment("column", "nearest", 0, False)(x, y, every, every)
    assert not (filled == 0).all(-1).any()


def test_gradients_reach_the_anchor_only_through_the_soft_plan():
    for normalise, reaches in (("column", False), ("paper", False), ("soft", True)):
        x, y, sx, sy = tokens(9, 11)
        x.requires_grad_(), y.requires_grad_()
        align = LocalAlignment(normalise, "nearest", 0, False)
        align(x, y, sx, sy)[0].square().sum().backward()
        assert x.grad[sx].abs().sum() > 0
        assert (y.grad is not None and bool(y.grad.abs().sum() > 0)) == reaches
        assert not x.grad[~sx].any()
        if reaches:
            assert align.log_tau.grad.abs() > 0 and torch.isfinite(y.grad).all()
    x, y, sx, sy = tokens(9, 11)
    x.requires_grad_(), y.requires_grad_()
    relaxed_distance(cosine_cost(x, y), allowed_pairs(sx, sy))[0].backward()
    assert x.grad[sx].abs().sum() > 0 and y.grad[sy].abs().sum() > 0
    assert not x.grad[~sx].any() and not y.grad[~sy].any()


@pytest.mark.parametrize("normalise", ["paper", "column", "soft"])
def test_masked_tokens_are_never_used(normalise):
    x, y, sx, sy = tokens(9, 11)
    align = LocalAlignment(normalise, "nearest", 0, False)
    clean, defined = align(x, y, sx, sy)
    x[~sx], y[~sy] = 1e9, float("nan")
    dirty, _ = align(x, y, sx, sy)
    torch.testing.assert_close(dirty[defined], clean[defined])
    nobody = torch.zeros_like(sx)
    moved, defined = align(x, y, nobody, sy)
    assert not defined.any() and not moved[sy].any()


def test_interleaving_round_trip_and_order():
    x = torch.randn(2, 3, 5, 4)
    flat = interleave(x)
    assert torch.equal(flat[:, 4], x[:, 1, 1]) and torch.equal(flat[:, 2], x[:, 2, 0])
    assert torch.equal(deinterleave(flat, 3), x)
    mask = torch.rand(2, 15) > 0.4
    packing = Packing(mask)
    packed = packing.pack(flat)
    n = int(mask[0].sum())
    assert torch.equal(packed[0, :n], flat[0][mask[0]])
    assert packing.mask[0].tolist() == [True] * n + [False] * (15 - n)
    assert torch.equal(packing.unpack(packed), flat)


# ---- kernel distance ------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 1.7])
def test_kernel_distance_against_sklearn_and_loops(sigma):
    pairs = [tokens(8, 10, seed=s) for s in range(3)]
    x, y, sx, sy = (torch.stack(t) for t in zip(*pairs, strict=True))
    got, defined = mmd(x, y, sx, sy, sigma)
    assert defined.all()
    variance = sigma**2
    if not sigma:
        every = []
        for b in range(3):
            z = torch.cat([x[b][sx[b]], y[b][sy[b]]])
            every += [float((p - q) @ (p - q)) for i, p in enumerate(z) for q in z[:i]]
        variance = np.sort(every)[(len(every) - 1) // 2] / 2  # torch's median: the lower one
    for b in range(3):
        a, c = x[b][sx[b]].numpy(), y[b][sy[b]].numpy()

        def kernel(p, q):
            return np.exp(-((p - q) ** 2).sum() / (2 * variance))

        naive = sum(kernel(p, q) for p in a for q in a) / len(a) ** 2
        naive += sum(kernel(p, q) for p in c for q in c) / len(c) ** 2
        naive -= 2 * sum(kernel(p, q) for p in a for q in c) / len(a) / len(c)
        assert float(got[b]) == pytest.approx(naive, abs=1e-9)
        gamma = 1 / (2 * variance)
        library = [rbf_kernel(p, q, gamma).mean() for p, q in ((a, a), (c, c), (a, c))]
        assert float(got[b]) == pytest.approx(library[0] + library[1] - 2 * library[2], abs=1e-9)


def test_unit_bandwidth_vanishes_where_the_median_works():
    d = 256
    x, y = (torch.nn.functional.layer_norm(t, (d,)) for t in torch.randn(2, 4, 96, d) + 1)
    y = y.roll(1, 1).requires_grad_()
    every = torch.ones(4, 96, dtype=torch.bool)
    cross = squared_distances(torch.cat([x, y.detach()], 1))[:, :96, 96:]
    assert torch.exp(-cross / 2).max() == 0  # underflow in fp32: no gradient can come out
    value, _ = mmd(x, y, every, every, 1.0)
    value.sum().backward()
    assert not y.grad.any()
    value, _ = mmd(x, y, every, every)
    value.sum().backward()
    assert y.grad.abs().max() > 0
    middle = torch.exp(-cross / (2 * median_variance(cross, torch.ones_like(cross) > 0))).median()
    assert float(middle) == pytest.approx(np.exp(-1), rel=1e-3)


def test_the_median_of_many_distances_is_close_to_that_of_all():
    distances = squared_distances(torch.randn(40, 128, 8))
    pairs = torch.rand(40, 128, 128) > 0.3
    exact = distances[pairs].median() / 2
    assert distances.numel() > 2 * SAMPLE
    assert float(median_variance(distances, pairs)) == pytest.approx(float(exact), rel=0.02)
    assert median_variance(distances, torch.zeros_like(pairs)) == 1


def test_kernel_distance_knows_equal_sets_and_ignores_masked_tokens():
    x, _, sx, _ = tokens(8, 8)
    shuffled = torch.randperm(8)
    assert float(mmd(x, x[shuffled], sx, sx[shuffled])[0]) == pytest.approx(0, abs=1e-12)
    near, far = (float(mmd(x, x + shift, sx, sx)[0]) for shift in (0.1, 3.0))
    assert 0 < near < far
    x2 = x.clone()
    x2[~sx] = float("nan")
    assert torch.equal(mmd(x2, x + 3, sx, sx)[0], mmd(x, x + 3, sx, sx)[0])
    value, defined = mmd(x, x, torch.zeros_like(sx), sx)
    assert value == 0 and not defined
