"""The selective scan against its definition, closed forms and finite differences."""

import pytest
import torch

from model.scan import checkpointed, selective_scan

torch.set_num_threads(1)  # small tensors: threads only wait for each other


def inputs(B=2, L=11, D=3, N=4, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    return {
        "x": normal(B, L, D),
        "dt": torch.nn.functional.softplus(normal(B, L, D)),
        "A": -normal(D, N).abs() - 0.1,
        "B": normal(B, L, N),
        "C": normal(B, L, N),
        "D": normal(D),
        "z": normal(B, L, D),
        "h0": normal(B, D, N),
    }


def gradients(backend, tensors, reverse=False):
    leaves = {name: t.clone().requires_grad_() for name, t in tensors.items()}
    y, state = selective_scan(**leaves, reverse=reverse, return_state=True, backend=backend)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    ((y * weight).sum() + (state**2).sum()).backward()
    return y.detach(), state.detach(), {name: t.grad for name, t in leaves.items()}


@pytest.mark.parametrize("backend", ["reference", "torch", "native"])
def test_constant_input_is_a_geometric_series(backend):
    L, a, dt, b, c, d = 40, -0.7, 0.3, 1.5, 0.8, 0.25
    ones = torch.ones(1, L, 1, dtype=torch.float64)
    A = torch.tensor([[a]], dtype=torch.float64)
    y = selective_scan(
        ones, dt * ones, A, b * ones, c * ones, torch.tensor([d]).double(), backend=backend
    )
    r = torch.exp(A[0, 0] * dt)
    t = torch.arange(1, L + 1)
    expected = c * dt * b * (1 - r**t) / (1 - r) + d
    torch.testing.assert_close(y[0, :, 0], expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("length", [1, 7, 64, 70])
@pytest.mark.parametrize("reverse", [False, True])
def test_function_equals_the_plain_loop_with_all_gradients(monkeypatch, length, reverse):
    monkeypatch.setattr(
        checkpointed, "PIECE_ELEMENTS", 24 * 5
    )  # pieces of 5 steps, a shorter last one
    tensors = inputs(L=length)
    y, state, expected = gradients("reference", tensors, reverse)
    y2, state2, got = gradients("torch", tensors, reverse)
    torch.testing.assert_close(y2, y, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(state2, state, atol=1e-12, rtol=1e-12)
    for name in tensors:
        torch.testing.assert_close(got[name], expected[name], atol=1e-11, rtol=1e-10, msg=name)


def test_gradcheck():
    tensors = {name: t.requires_grad_() for name, t in inputs(B=1, L=6, D=2, N=3).items()}
    names = list(tensors)

    def run(*values):
        return selective_scan(
            **dict(zip(names, values, strict=True)), return_state=True, backend="torch"
        )

    assert torch.autograd.gradcheck(run, tuple(tensors.values()))


def test_two_halves_with_the_state_carried_over_equal_the_whole():
    t = inputs(L=20)
    whole, end = selective_scan(**t, return_state=True)
    first = {k: v[:, :9] if k in ("x", "dt", "B", "C", "z") else v for k, v in t.items()}
    second = {k: v[:, 9:] if k in ("x", "dt", "B", "C", "z") else v for k, v in t.items()}
    y1, state = selective_scan(**first, return_state=True)
    y2, state = selective_scan(**(second | {"h0": state}), return_state=True)
    torch.testing.assert_close(torch.cat([y1, y2], 1), whole, atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(state, end, atol=1e-13, rtol=1e-12)


def test_reverse_is_the_flipped_sequence():
    t = inputs()
    flipped = {k: v.flip(1) if k in ("x", "dt", "B", "C", "z") else v for k, v in t.items()}
    torch.testing.assert_close(selective_scan(**t, reverse=True), selective_scan(**flipped).flip(1))


def test_saved_memory_is_a_fraction_of_the_state_sequence():
    B, L, D, N = 4, 96, 64, 16
    t = inputs(B, L, D, N, torch.float32)
    saved = {}
    for backend in ("reference", "torch"):
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        leaves = {k: v.clone().requires_grad_() for k, v in t.items()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = selective_scan(**leaves, backend=backend)
        saved[backend] = sum(sizes.values())
        del y
    states = B * L * D * N * 4
    assert saved["reference"] > 2 * states
    assert saved["torch"] < 0.5 * states


def test_half_precision_input_keeps_an_fp32_state():
    t = inputs(L=96)
    low = {k: v.to(torch.bfloat16) for k, v in t.items()}
    y, state = selective_scan(**low, return_state=True)
    exact = selective_scan(**{k: v.double() for k, v in low.items()})
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    # One rounding at the end (and one in the gate), not one per step.
    torch.testing.assert_close(y.double(), exact, atol=0.05, rtol=2e-2)


def test_zero_steps_leave_the_state_alone():
    t = inputs()
    _, state = selective_scan(**(t | {"dt": torch.zeros_like(t["dt"])}), return_state=True)
    torch.testing.assert_close(state, t["h0"], atol=0, rtol=0)


def test_unknown_backend():
    with pytest.raises(ValueError, match="none of auto"):
        selective_scan(**inputs(), backend="cuda")
