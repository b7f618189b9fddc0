"""Scans over time: one interface, several exact engines.

`selective_scan`, the scan of Mamba-1,

    h_t = exp(dt_t A) h_{t-1} + (dt_t x_t) B_t          h_t in R^{D x N}
    y_t = C_t h_t + D x_t,  optionally times SiLU(z_t)

`selective_step`, one frame of it, and `gated_scan`, the general form h_t = a_t h_{t-1} + b_t.

Glossary (code name: symbol in "Mamba", arXiv 2312.00752)
    x: x   dt: Delta (after softplus)   A: A   B: B   C: C   D: D   z: gate branch   h: hidden state
    L: sequence length   D (as a size): inner width   N: state size
The input is discretised with Euler's rule (B-bar = dt B), as every public implementation does,
not with the zero-order hold of the paper's text.

Engines
    reference   plain loop under autograd, any dtype: the oracle of the tests
    torch       exact `torch.autograd.Function` with little memory, any device
    native      compiled CPU kernels, forward and backward (numba; no compiler needed)
    triton      fused GPU kernels, forward and backward, of our own
    mamba_ssm   the CUDA scan of the package mamba_ssm, where it is built and the call fits
    auto        the default: the fastest that fits the call; logged once per choice
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.scan import compiled_cuda, native, triton_engine
from model.scan.checkpointed import checkpointed_gated, checkpointed_scan
from model.scan.reference import reference_gated, reference_scan
from runtime import get_logger

log = get_logger("scan")

BACKENDS = ("reference", "torch", "native", "triton", "mamba_ssm")
GATED_BACKENDS = ("reference", "torch", "native", "triton")
_logged: set[tuple[str, str, torch.dtype]] = set()


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    h0: Tensor | None = None,
    reverse: bool = False,
    return_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the recurrence over time.

    Parameters
    ----------
    x, dt : (B, L, D); dt is the step after softplus (0 leaves the state untouched)
    A : (D, N), negative
    B, C : (B, L, N)
    D : (D,) skip weight, optional
    z : (B, L, D) gate, optional: the output is multiplied by SiLU(z)
    h0 : (B, D, N) initial state, zeros if absent
    reverse : run from the last frame to the first
    return_state : also return the state after the last step, (B, D, N)
    backend : one of `BACKENDS`, or "auto"

    Returns y (B, L, D) in the dtype of x, and the state if asked for. Everything inside is fp32
    (float64 for float64 x), whatever the dtypes of the inputs, and rounded once at the end.
    Raises ValueError for an unknown backend, shapes that do not fit, or a backend that cannot do
    the call.
    """
    _check_shapes(x, dt, A, B, C, D, z, h0)
    if backend == "auto":
        backend = _choose(x, A, h0, return_state)
    elif backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is none of auto, {', '.join(BACKENDS)}")
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    inputs = [None if t is None else t.to(dtype) for t in (x, dt, A, B, C, D, z, h0)]
    with torch.autocast(x.device.type, enabled=False):  # products of fp32 tensors stay fp32
        y, state = _ENGINES[backend](*inputs, reverse)  # (B, L, D), (B, D, N)
    y = y.to(x.dtype)
    return (y, state) if return_state else y


def selective_step(
    x_t: Tensor,
    dt_t: Tensor,
    A: Tensor,
    B_t: Tensor,
    C_t: Tensor,
    D: Tensor | None,
    z_t: Tensor | None,
    h: Tensor,
) -> tuple[Tensor, Tensor]:
    """One frame of `selective_scan`: x_t, dt_t, z_t (B, D), B_t, C_t (B, N), h (B, D, N).

    Returns y_t (B, D) and the new state; `h` itself is left as it is.
    """
    dtype = torch.float64 if x_t.dtype == torch.float64 else torch.float32
    x, dt, B, C = (t.to(dtype) for t in (x_t, dt_t, B_t, C_t))
    decay = torch.exp(dt.unsqueeze(-1) * A.to(dtype))  # (B, D, N)
    h = torch.addcmul((dt * x).unsqueeze(-1) * B.unsqueeze(1), decay, h.to(dtype))  # (B, D, N)
    with torch.autocast(x.device.type, enabled=False):
        y = torch.matmul(h, C.unsqueeze(-1)).squeeze(-1)  # (B, D)
    if D is not None:
        y = y + D.to(dtype) * x
    if z_t is not None:
        y = y * F.silu(z_t.to(dtype))
    return y.to(x_t.dtype), h


def gated_scan(
    a: Tensor,
    b: Tensor,
    h0: Tensor | None = None,
    reverse: bool = False,
    return_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """All states of h_t = a_t h_{t-1} + b_t, elementwise.

    Parameters
    ----------
    a, b : (B, L, ...), any trailing shape; they may broadcast against each other
    h0 : (B, ...) initial state, zeros if absent
    reverse : run from the last frame to the first
    return_state : also return the last state, (B, ...), fp32 (float64 for float64)
    backend : one of `GATED_BACKENDS`, or "auto"

    Returns the states (B, L, ...) in the dtype of b. Differentiable in a, b and h0.
    """
    if backend == "auto":
        backend = _choose_gated(b)
    elif backend not in GATED_BACKENDS:
        raise ValueError(f"backend {backend!r} is none of auto, {', '.join(GATED_BACKENDS)}")
    dtype = torch.float64 if b.dtype == torch.float64 else torch.float32
    a, b_ = torch.broadcast_tensors(a.to(dtype), b.to(dtype))
    shape = b_.shape
    frame = shape[:1] + shape[2:]
    h = b_.new_zeros(frame) if h0 is None else h0.to(dtype).expand(frame)
    a, b_ = a.reshape(*shape[:2], -1), b_.reshape(*shape[:2], -1)  # (B, L, K)
    h = h.reshape(shape[0], -1)  # (B, K)
    if reverse:
        a, b_ = a.flip(1), b_.flip(1)
    with torch.autocast(b.device.type, enabled=False):
        states = _GATED[backend](a, b_, h)  # (B, L, K)
    last = states[:, -1].reshape(frame)
    if reverse:
        states = states.flip(1)
    states = states.reshape(shape).to(b.dtype)
    return (states, last) if return_state else states


def _outside(core: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Time reversal, skip and gate around an engine that has none of them."""

    def run(x, dt, A, B, C, D, z, h0, reverse):
        sequences = [t.flip(1) for t in (x, dt, B, C)] if reverse else (x, dt, B, C)
        u, step, b, c = sequences
        if h0 is None:
            h0 = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])  # (B, D, N)
        y, state = core(u, step, A, b, c, h0)  # (B, L, D), (B, D, N)
        if reverse:
            y = y.flip(1)
        if D is not None:
            y = y + D * x
        if z is not None:
            y = y * F.silu(z)
        return y, state

    return run


_ENGINES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": _outside(reference_scan),
    "torch": _outside(checkpointed_scan),
    "native": native.native_scan,
    "triton": triton_engine.triton_scan,
    "mamba_ssm": compiled_cuda.cuda_scan,
}
_GATED: dict[str, Callable[..., Tensor]] = {
    "reference": reference_gated,
    "torch": checkpointed_gated,
    "native": native.native_gated,
    "triton": triton_engine.triton_gated,
}


def _choose(x: Tensor, A: Tensor, h0: Tensor | None, return_state: bool) -> str:
    """The fastest engine for a call; what each was measured at stands in docs/scan.md."""
    if x.device.type == "cpu":
        engine = "native" if native.available() else "torch"
    elif compiled_cuda.fits(x, A, h0, return_state):
        engine = "mamba_ssm"
    elif triton_engine.fits(x, A):
        engine = "triton"
    else:
        engine = "torch"
    return _announce(engine, "selective scan", x)


def _choose_gated(b: Tensor) -> str:
    if b.device.type == "cpu":
        engine = "native" if native.available() else "torch"
    else:
        usable = b.device.type == "cuda" and triton_engine.available()
        engine = "triton" if usable else "torch"
    return _announce(engine, "gated scan", b)


def _announce(engine: str, kind: str, x: Tensor) -> str:
    key = (f"{kind}: {engine}", x.device.type, x.dtype)
    if key not in _logged:
        _logged.add(key)
        log.info("%s engine %s (%s, %s)", kind, engine, x.device.type, str(x.dtype)[6:])
    return engine


def _check_shapes(x, dt, A, B, C, D, z, h0) -> None:
    batch, L, width = x.shape
    N = A.shape[-1]
    expected = {
        "dt": (dt, (batch, L, width)),
        "A": (A, (width, N)),
        "B": (B, (batch, L, N)),
        "C": (C, (batch, L, N)),
        "D": (D, (width,)),
        "z": (z, (batch, L, width)),
        "h0": (h0, (batch, width, N)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, x {tuple(x.shape)} wants {shape}")
    if L == 0:
        raise ValueError("a scan needs at least one frame")
