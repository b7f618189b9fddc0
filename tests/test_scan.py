"""The selective scan against its definition, closed forms and finite differences."""

from functools import cache

import pytest
import torch

from model.scan import checkpointed, selective_scan, selective_step
from tests.scan_data import error, part, results, scan_inputs

torch.set_num_threads(1)  # small tensors: threads only wait for each other

ENGINES = ["reference", "torch", "native"]
FUNCTIONS = ["torch", "native"]


@pytest.mark.parametrize("backend", ENGINES)
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


@cache
def oracle(length: int, reverse: bool, width: int = 36) -> dict[str, torch.Tensor]:
    # The inputs of the fp32 engines, rounded to fp32 first, in float64 arithmetic.
    tensors = scan_inputs(L=length, D=width, dtype=torch.float32)
    return results("reference", {k: v.double() for k, v in tensors.items()}, reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 96, 1000])
@pytest.mark.parametrize("backend", ENGINES)
def test_fp32_engines_against_the_float64_loop(backend, length, reverse):
    got = results(backend, scan_inputs(L=length, D=36, dtype=torch.float32), reverse)
    for name, expected in oracle(length, reverse).items():
        assert error(got[name], expected) <= 1e-5, name


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length, width", [(1, 3), (7, 32), (64, 3), (70, 65)])
@pytest.mark.parametrize("backend", FUNCTIONS)
def test_float64_engines_equal_the_loop_with_all_gradients(
    monkeypatch, backend, length, width, reverse
):
    # The torch engine: pieces of 5 steps, batch rows one by one. 7 and 70 leave a shorter piece.
    monkeypatch.setattr(checkpointed, "PIECE_ELEMENTS", width * 4 * 5)
    monkeypatch.setattr(checkpointed, "STEP_ELEMENTS", width * 4)
    tensors = scan_inputs(L=length, D=width)
    got = results(backend, tensors, reverse)
    for name, expected in results("reference", tensors, reverse).items():
        torch.testing.assert_close(got[name], expected, atol=1e-11, rtol=1e-10, msg=name)


@pytest.mark.parametrize("without", [("D",), ("z",), ("h0",), ("D", "z", "h0")])
@pytest.mark.parametrize("backend", FUNCTIONS)
def test_optional_inputs(backend, without):
    tensors = {k: v for k, v in scan_inputs(L=20, D=40).items() if k not in without}
    got = results(backend, tensors)
    for name, expected in results("reference", tensors).items():
        torch.testing.assert_close(got[name], expected, atol=1e-11, rtol=1e-10, msg=name)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ENGINES)
def test_gradcheck(backend, reverse):
    tensors = {name: t.requires_grad_() for name, t in scan_inputs(B=1, L=6, D=2, N=3).items()}
    names = list(tensors)

    def run(*values):
        return selective_scan(
            **dict(zip(names, values, strict=True)),
            reverse=reverse,
            return_state=True,
            backend=backend,
        )

    assert torch.autograd.gradcheck(run, tuple(tensors.values()))


@pytest.mark.parametrize("backend", FUNCTIONS)
def test_two_halves_with_the_state_carried_over_equal_the_whole(backend):
    tensors = scan_inputs(L=40)
    weight = torch.linspace(-1, 1, 2 * 40 * 3, dtype=torch.float64).view(2, 40, 3)

    def gradients(run):
        leaves = {name: t.clone().requires_grad_() for name, t in tensors.items()}
        y, state = run(leaves)
        ((y * weight).sum() + (state**2).sum()).backward()
        return [y.detach(), state.detach(), *(t.grad for t in leaves.values())]

    def halves(leaves):
        y1, state = selective_scan(**part(leaves, slice(0, 19)), return_state=True, backend=backend)
        second = part(leaves, slice(19, None)) | {"h0": state}
        y2, state = selective_scan(**second, return_state=True, backend=backend)
        return torch.cat([y1, y2], 1), state

    whole = gradients(lambda leaves: selective_scan(**leaves, return_state=True, backend=backend))
    for a, b in zip(gradients(halves), whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_single_steps_equal_the_scan(dtype):
    t = scan_inputs(L=15, D=33, dtype=dtype)
    expected, last = selective_scan(**t, return_state=True, backend="reference")
    h = t["h0"]
    for i in range(15):
        x, dt, B, C, z = (t[k][:, i] for k in ("x", "dt", "B", "C", "z"))
        y, h = selective_step(x, dt, t["A"], B, C, t["D"], z, h)
        tolerance = {torch.float64: 1e-14, torch.float32: 1e-5, torch.bfloat16: 2**-7}[dtype]
        assert y.dtype == dtype and error(y, expected[:, i]) <= tolerance
    assert h.dtype == last.dtype and error(h, last) <= 1e-5


@pytest.mark.parametrize("backend", ENGINES)
def test_reverse_is_the_flipped_sequence(backend):
    t = scan_inputs()
    flipped = {k: v.flip(1) if k in ("x", "dt", "B", "C", "z") else v for k, v in t.items()}
    y, state = selective_scan(**t, reverse=True, return_state=True, backend=backend)
    y2, state2 = selective_scan(**flipped, return_state=True, backend="reference")
    torch.testing.assert_close(y, y2.flip(1))
    torch.testing.assert_close(state, state2)


def test_saved_memory_is_a_fraction_of_the_state_sequence():
    B, L, D, N = 4, 96, 64, 16
    t = scan_inputs(B, L, D, N, torch.float32)
    saved = {}
    for backend in ENGINES:
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
    assert saved["native"] < 0.4 * states


@pytest.mark.parametrize("backend", ENGINES)
def test_half_precision_input_is_rounded_once_at_the_end(backend):
    low = {k: v.to(torch.bfloat16) for k, v in scan_inputs(L=96).items()}
    y, state = selective_scan(**low, return_state=True, backend=backend)
    exact = {k: v.float() for k, v in low.items()}
    y32, state32 = selective_scan(**exact, return_state=True, backend=backend)
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert torch.equal(y, y32.to(torch.bfloat16)) and torch.equal(state, state32)
    leaves = {k: v.requires_grad_() for k, v in low.items()}
    selective_scan(**leaves, backend=backend).float().sum().backward()
    assert all(t.grad.dtype == torch.bfloat16 for t in leaves.values() if t.grad is not None)


@pytest.mark.parametrize("backend", ENGINES)
def test_autocast_changes_nothing(backend):
    t = scan_inputs(L=40, D=33, dtype=torch.float32)
    expected = results(backend, t)
    step = [t[k][:, 0] for k in ("x", "dt")], [t[k][:, 0] for k in ("B", "C")]
    y, _ = selective_step(*step[0], t["A"], *step[1], t["D"], None, t["h0"])
    with torch.autocast("cpu", torch.bfloat16):
        got = results(backend, t)
        y_, _ = selective_step(*step[0], t["A"], *step[1], t["D"], None, t["h0"])
    assert torch.equal(y, y_)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("backend", ENGINES)
def test_strided_inputs_need_no_copy_to_be_right(backend):
    """Slices of a projection, as MambaBlock passes them, and a batch that is one row repeated."""
    g = torch.Generator().manual_seed(3)
    projected = torch.randn(2, 20, 2 * 32 + 5 + 2 * 4, generator=g)
    x, z, dt, B, C = projected.split([32, 32, 5, 4, 4], dim=-1)
    dt = torch.rand(1, 20, 32, generator=g).expand(2, 20, 32)
    x = x.transpose(1, 2).contiguous().transpose(1, 2)  # channels not contiguous
    A = -torch.rand(4, 32, generator=g).t() - 0.1
    got = selective_scan(x, dt, A, B, C, z=z, backend=backend)
    copies = [t.contiguous().double() for t in (x, dt, A, B, C)]
    expected = selective_scan(*copies, z=z.contiguous().double(), backend="reference")
    assert error(got, expected) <= 1e-5


@pytest.mark.parametrize("backend", ENGINES)
def test_zero_steps_leave_the_state_alone(backend):
    for dtype in (torch.float64, torch.float32):
        t = scan_inputs(dtype=dtype)
        t["dt"] = torch.zeros_like(t["dt"])
        _, state = selective_scan(**t, return_state=True, backend=backend)
        assert torch.equal(state, t["h0"])


@pytest.mark.parametrize("backend", ENGINES)
def test_steps_so_large_that_the_decay_underflows(backend):
    t = scan_inputs(L=40, D=5, dtype=torch.float32)
    t["dt"] = t["dt"] * torch.tensor([1.0, 1e2, 1e3, 1e4, 1e6])
    exact = {k: v.double() for k, v in t.items()}
    got = results(backend, t)
    for name, expected in results("reference", exact).items():
        assert error(got[name], expected) <= 1e-5, name


@pytest.mark.parametrize("backend", ENGINES)
def test_not_a_number_stays_visible_and_local(backend):
    t = {k: v for k, v in scan_inputs(L=40, D=40, dtype=torch.float32).items() if k != "h0"}
    t["x"][0, 20, 2] = torch.nan
    t["dt"][1, 30, 7] = torch.nan
    y, state = selective_scan(**t, return_state=True, backend=backend)
    bad = torch.zeros(2, 40, 40, dtype=torch.bool)
    bad[0, 20:, 2] = True
    bad[1, 30:, 7] = True
    assert torch.equal(y.isnan(), bad)
    assert torch.equal(state.isnan().all(-1), bad[:, -1])
    t["A"][3, 1] = torch.nan
    assert selective_scan(**t, backend=backend)[:, :, 3].isnan().all()


def test_exponential_of_the_native_engine():
    """exp alone: x = 0, h0 = C = 1, so that y = exp(dt A)."""
    powers = torch.linspace(-87, 85, 50_000, dtype=torch.float32)
    powers = torch.cat([powers, torch.linspace(-1, 0, 50_000), torch.tensor([-88.0, -1e30, 89.0])])
    width = len(powers)
    ones = torch.ones(1, 1, 1)
    y = selective_scan(
        torch.zeros(1, 1, width),
        powers.view(1, 1, width),
        ones[0].expand(width, 1),
        ones,
        ones,
        h0=ones.expand(1, width, 1),
        backend="native",
    )[0, 0]
    exact = powers.double().exp()
    assert ((y[:-3].double() - exact[:-3]) / exact[:-3]).abs().max() < 2e-7
    assert y[-3:].tolist() == [0.0, 0.0, torch.inf]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"backend": "cuda"}, "none of auto"),
        ({"B": torch.zeros(2, 10, 4)}, r"B is \(2, 10, 4\)"),
        ({"A": torch.zeros(4, 4)}, r"A is \(4, 4\)"),
        ({"h0": torch.zeros(2, 4, 3)}, r"h0 is \(2, 4, 3\)"),
    ],
)
def test_calls_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**(scan_inputs() | change))


def test_an_empty_sequence_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        selective_scan(**part(scan_inputs(), slice(0, 0)))
