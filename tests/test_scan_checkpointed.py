"""The scans in plain torch against loops in numpy, and their gradients by complex steps."""

import numpy as np
import pytest
import torch

from model.scan import checkpointed
from model.scan.checkpointed import checkpointed_gated, checkpointed_scan
from tests.scan_data import error

torch.set_num_threads(1)
# torch only warns where an `out` of another shape is made anew.
pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(11)
B, L, D, N = 3, 11, 4, 2
STEP = 1e-30  # of the complex derivative, which subtracts nothing


def scan(x, dt, A, Bt, C, h0):
    """y (B, L, D) and the last state (B, D, N), number by number along the definition."""
    h, y = h0.copy(), np.zeros(x.shape, np.result_type(x, dt, A, Bt, C, h0))
    for t in range(x.shape[1]):
        decay = np.exp(dt[:, t, :, None] * A)
        h = decay * h + (dt[:, t] * x[:, t])[:, :, None] * Bt[:, t, None, :]
        y[:, t] = np.einsum("bdn,bn->bd", h, C[:, t])
    return y, h


def gated(a, b, h0):
    h, states = h0, []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        states.append(h)
    return (np.stack(states, 1),)


def made(length=L, batch=B):
    return [
        RNG.normal(size=(batch, length, D)),
        RNG.uniform(0.1, 1.5, (batch, length, D)),
        -RNG.uniform(0.1, 2.0, (D, N)),
        RNG.normal(size=(batch, length, N)),
        RNG.normal(size=(batch, length, N)),
        RNG.normal(size=(batch, D, N)),
    ]


def gates(length=L):
    return [
        RNG.uniform(0.1, 1.2, (B, length, D)),
        RNG.normal(size=(B, length, D)),
        RNG.normal(size=(B, D)),
    ]


def derivatives(function, inputs, weights):
    """Gradient of sum(weights * outputs) for every number of every input."""
    found = []
    for i, values in enumerate(inputs):
        gradient = np.zeros(values.size)
        for k in range(values.size):
            moved = [v.astype(complex) if j == i else v for j, v in enumerate(inputs)]
            moved[i].flat[k] += STEP * 1j
            out = function(*moved)
            gradient[k] = sum((w * y).sum().imag for w, y in zip(weights, out, strict=True)) / STEP
        found.append(gradient.reshape(values.shape))
    return found


def check(function, expected, inputs):
    """Values and gradients of a torch function are those of a numpy function."""
    wanted = expected(*inputs)
    leaves = [torch.from_numpy(v).requires_grad_() for v in inputs]
    got = function(*leaves)
    got = got if isinstance(got, tuple) else (got,)
    weights = [RNG.normal(size=y.shape) for y in wanted]
    for y, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(y.detach().numpy(), w, rtol=1e-11, atol=1e-13)
    sum((y * torch.from_numpy(w)).sum() for y, w in zip(got, weights, strict=True)).backward()
    for leaf, gradient in zip(leaves, derivatives(expected, inputs, weights), strict=True):
        np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 4, 5, L])
def test_selective_scan_in_pieces_of_four_steps(length, monkeypatch):
    """11 steps are pieces of 4, 4 and 3; 5 leave a piece of a single step."""
    monkeypatch.setattr(checkpointed, "PIECE_ELEMENTS", 1)
    check(checkpointed_scan, scan, made(length))


def test_selective_scan_in_one_piece_and_in_parts_of_the_batch(monkeypatch):
    check(checkpointed_scan, scan, made())
    monkeypatch.setattr(checkpointed, "STEP_ELEMENTS", 2 * D * N)
    check(checkpointed_scan, scan, made())


@pytest.mark.parametrize("length", [1, 2, L])
def test_gated_scan(length):
    check(checkpointed_gated, gated, gates(length))


def test_inputs_that_are_not_contiguous():
    turned = [np.asfortranarray(v) for v in gates()]
    assert not turned[0].flags.c_contiguous
    check(checkpointed_gated, gated, turned)
    check(checkpointed_scan, scan, [np.asfortranarray(v) for v in made()])


def test_a_second_call_leaves_the_results_of_the_first_alone():
    """The last state is a copy also where it would be a view of memory that is used again."""
    for width, states in ((1, 3), (3, 1), (1, 1), (3, 2)):
        x = torch.ones(2, 6, width, dtype=torch.float64)
        b = torch.ones(2, 6, states, dtype=torch.float64)
        A, h0 = -x[0, 0, :, None].expand(width, states), x.new_zeros(2, width, states)
        y, h = checkpointed_scan(x, x, A, b, b, h0)
        assert h.is_contiguous() and h.shape == (2, width, states) and y.shape == x.shape
        assert h.untyped_storage().nbytes() == h.numel() * 8


def test_gradients_are_those_of_single_precision_also_under_autocast():
    inputs = [torch.from_numpy(v).float() for v in made()]
    found = []
    for dtype, autocast in ((torch.float64, False), (torch.float32, False), (torch.float32, True)):
        leaves = [t.detach().to(dtype, copy=True).requires_grad_() for t in inputs]
        y, h = checkpointed_scan(*leaves)
        assert y.dtype == h.dtype == dtype
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ((y**2).sum() + (h**2).sum()).backward()
        found.append([t.grad for t in leaves])
    for exact, plain, under in zip(*found, strict=True):
        assert torch.equal(plain, under) and plain.dtype == torch.float32
        assert error(plain, exact) < 1e-5


def test_memory_is_the_state_at_the_start_of_every_piece(monkeypatch):
    """103 steps in pieces of 10: the inputs and 11 states, not 103."""
    monkeypatch.setattr(checkpointed, "PIECE_ELEMENTS", 10 * B * N * D)
    inputs = [torch.from_numpy(v) for v in made(103)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.shape) or t, lambda t: t
    ):
        checkpointed_scan(*(t.requires_grad_() for t in inputs))
    assert saved == [(103, B, D), (103, B, D), (N, D), (103, B, N), (103, B, N), (11, B, N, D)]


@pytest.mark.parametrize(
    ("steps", "elements", "length"),
    [
        (1000, 1, 64),  # never more than 64
        (1000, 0, 64),
        (1000, 2**17 // 64, 64),
        (1000, 2**17 // 63, 63),
        (1000, 2**17 // 10, 10),
        (1000, 2**17 // 5, 5),
        (1000, 2**17, 4),  # never less than 4
        (7, 2**17 // 10, 7),
        (3, 2**17, 3),
        (1, 1, 1),
        (0, 1, 1),
    ],
)
def test_length_of_a_piece(steps, elements, length):
    assert checkpointed._piece_length(steps, elements) == length


def test_pieces():
    assert checkpointed._pieces(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert checkpointed._pieces(8, 4) == [(0, 4), (4, 8)]


@pytest.mark.parametrize(
    ("elements", "device", "parts"),
    [
        (3 * D * N, "cpu", [3]),
        (3 * D * N - 1, "cpu", [2, 1]),
        (D * N, "cpu", [1, 1, 1]),
        (1, "cpu", [1, 1, 1]),
        (1, "meta", [3]),  # only a CPU's cache needs parts
        (100 * D * N, "meta", [3]),
    ],
)
def test_rows_of_a_batch_go_through_a_cpu_in_parts(monkeypatch, elements, device, parts):
    calls = []

    class Scan:
        @staticmethod
        def apply(x, dt, A, Bt, C, h0):
            assert len(x) == len(dt) == len(Bt) == len(C) == len(h0)
            calls.append(len(x))
            return x, h0

    monkeypatch.setattr(checkpointed, "_CheckpointedScan", Scan)
    monkeypatch.setattr(checkpointed, "STEP_ELEMENTS", elements)
    inputs = [torch.from_numpy(v).to(device) for v in made()]
    y, h = checkpointed_scan(*inputs)
    assert calls == parts and (y.shape, h.shape) == ((B, L, D), (B, D, N))
    if device == "cpu":
        assert torch.equal(y, inputs[0]) and torch.equal(h, inputs[-1])
