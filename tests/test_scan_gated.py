"""The gated scan h_t = a_t h_{t-1} + b_t against its definition and finite differences."""

import pytest
import torch

from model.scan import gated_scan, selective_scan
from tests.scan_data import error, scan_inputs

torch.set_num_threads(1)  # small tensors: threads only wait for each other

ENGINES = ["reference", "torch", "native"]


def inputs(L=9, trailing=(3, 2), dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = torch.rand(2, L, *trailing, generator=g, dtype=torch.float64)
    b = torch.randn(2, L, *trailing, generator=g, dtype=torch.float64)
    h0 = torch.randn(2, *trailing, generator=g, dtype=torch.float64)
    return [t.to(dtype) for t in (a, b, h0)]


def results(backend, tensors, reverse):
    leaves = [t.clone().requires_grad_() for t in tensors]
    states, last = gated_scan(*leaves, reverse=reverse, return_state=True, backend=backend)
    weight = torch.linspace(-1, 1, states.numel(), dtype=torch.float64).view_as(states)
    ((states * weight.to(states.dtype)).sum() + (last**2).sum()).backward()
    return [states.detach(), last.detach(), *(t.grad for t in leaves)]


@pytest.mark.parametrize("backend", ENGINES)
def test_definition_and_trailing_shapes(backend):
    for trailing in [(), (5,), (3, 2), (2, 3, 70)]:
        a, b, h0 = inputs(4, trailing)
        states, last = gated_scan(a, b, h0, return_state=True, backend=backend)
        h = h0
        for t in range(4):
            h = a[:, t] * h + b[:, t]
            torch.testing.assert_close(states[:, t], h, atol=1e-14, rtol=1e-14)
        torch.testing.assert_close(last, h, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 31, 33, 1000])
@pytest.mark.parametrize("backend", ENGINES)
def test_fp32_engines_against_the_float64_loop(backend, length, reverse):
    tensors = inputs(length, (7, 20), torch.float32)
    expected = results("reference", [t.double() for t in tensors], reverse)
    for got, want in zip(results(backend, tensors, reverse), expected, strict=True):
        assert error(got, want) <= 1e-5


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ENGINES)
def test_gradcheck(backend, reverse):
    tensors = [t.requires_grad_() for t in inputs(5, (3,))]
    assert torch.autograd.gradcheck(
        lambda a, b, h: gated_scan(a, b, h, reverse, True, backend), tensors
    )


@pytest.mark.parametrize("backend", ENGINES)
def test_broadcast_gates_and_absent_initial_state(backend):
    a, b, h0 = inputs(12, (3, 4))
    narrow = a[..., :1].clone().requires_grad_()
    states = gated_scan(narrow, b, backend=backend)
    states.square().sum().backward()
    wide = a[..., :1].expand_as(b).clone().requires_grad_()
    expected = gated_scan(wide, b, torch.zeros_like(h0), backend="reference")
    expected.square().sum().backward()
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close(narrow.grad, wide.grad.sum(-1, keepdim=True))


@pytest.mark.parametrize("backend", ENGINES)
def test_the_selective_scan_is_a_special_case(backend):
    t = scan_inputs(L=30)
    a = torch.exp(t["dt"].unsqueeze(-1) * t["A"])  # (B, L, D, N)
    b = (t["dt"] * t["x"]).unsqueeze(-1) * t["B"].unsqueeze(2)
    y = (gated_scan(a, b, t["h0"], backend=backend) * t["C"].unsqueeze(2)).sum(-1)
    expected = selective_scan(**{k: v for k, v in t.items() if k not in ("D", "z")})
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("backend", ENGINES)
def test_zero_gates_and_not_a_number(backend):
    a, b, h0 = inputs(6, (2,), torch.float32)
    a[:, 3] = 0  # a ratio of products would divide by it
    b[0, 1, 0] = torch.nan
    states = gated_scan(a, b, h0, backend=backend)
    assert states[0, 1:, 0].isnan().all() and states[:, :, 1].isfinite().all()
    assert states[1].isfinite().all()
    assert torch.equal(states[:, 3, 1], b[:, 3, 1])


def test_half_precision_keeps_an_fp32_state():
    a, b, h0 = (t.to(torch.bfloat16) for t in inputs(50, (4,)))
    states, last = gated_scan(a, b, h0, return_state=True)
    exact, exact_last = gated_scan(a.double(), b.double(), h0.double(), return_state=True)
    assert states.dtype == torch.bfloat16 and last.dtype == torch.float32
    assert error(states, exact) <= 2**-8 and error(last, exact_last) <= 1e-6


def test_unknown_backend():
    with pytest.raises(ValueError, match="none of auto"):
        gated_scan(*inputs(), backend="mamba_ssm")
