"""The selective scan of Mamba-1: one interface, several backends.

    h_t = exp(dt_t A) h_{t-1} + (dt_t x_t) B_t          h_t in R^{D x N}
    y_t = C_t h_t + D x_t,  optionally times SiLU(z_t)

Glossary (code name: symbol in "Mamba", arXiv 2312.00752)
    x: x   dt: Delta (after softplus)   A: A   B: B   C: C   D: D   z: gate branch   h: hidden state
    L: sequence length   D (as a size): inner width   N: state size
The input is discretised with Euler's rule (B-bar = dt B), as every public implementation does,
not with the zero-order hold of the paper's text.

Backends
    reference   plain loop under autograd, any dtype: the oracle of the tests
    torch       exact `torch.autograd.Function`: keeps the state only every few steps and computes
                the steps between again in the backward pass, so memory does not grow with L x N
    auto        the default: `torch`
A new engine is one more entry in `BACKENDS` with the signature of `reference_scan`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of one (Q, B, N, D) piece: half a megabyte in fp32, so that a piece stays in a core's cache.
PIECE_ELEMENTS = 1 << 17


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
    backend : key of `BACKENDS`, or "auto"

    Returns y (B, L, D) in the dtype of x, and the state if asked for. The state is fp32 (float64
    for float64 input) whatever the dtype of x.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is none of auto, {', '.join(BACKENDS)}")
    scan = BACKENDS["torch" if backend == "auto" else backend]
    state_dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    sequences = [t.to(state_dtype) for t in (x, dt, B, C)]
    if reverse:
        sequences = [t.flip(1) for t in sequences]
    u, step, b, c = sequences
    if h0 is None:
        h0 = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])  # (B, D, N)
    y, state = scan(u, step, A.to(state_dtype), b, c, h0.to(state_dtype))  # (B, L, D), (B, D, N)
    if reverse:
        y = y.flip(1)
    if D is not None:
        y = y + D.to(state_dtype) * x.to(state_dtype)
    y = y.to(x.dtype)
    if z is not None:
        y = y * F.silu(z)
    return (y, state) if return_state else y


def reference_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, step by step, under autograd. Shapes as in `selective_scan`; no D, no z."""
    h = h0  # (B, D, N)
    ys = []
    # unbind once: slicing x[:, t] inside the loop would make the backward pass quadratic in L.
    for x_t, dt_t, B_t, C_t in zip(
        x.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True
    ):
        decay = torch.exp(dt_t.unsqueeze(-1) * A)  # (B, D, N)
        h = decay * h + (dt_t * x_t).unsqueeze(-1) * B_t.unsqueeze(1)  # (B, D, N)
        ys.append((h * C_t.unsqueeze(1)).sum(-1))  # (B, D)
    return torch.stack(ys, dim=1), h


class _CheckpointedScan(torch.autograd.Function):
    """Exact scan that stores the state at the start of every piece of Q steps only.

    Inside, time comes first and the inner width D last, (Q, B, N, D): every step is one fused
    multiply-add over contiguous memory, everything else is done once per piece.
    """

    @staticmethod
    def forward(ctx, x, dt, A, B, C, h0):
        x, dt, B, C = (t.transpose(0, 1).contiguous() for t in (x, dt, B, C))  # (L, B, D|N)
        At = A.t().contiguous()  # (N, D)
        L, batch, width = x.shape
        states = At.shape[0]
        Q = _piece_length(L, batch * states * width)
        h = h0.transpose(1, 2).contiguous()  # (B, N, D)
        starts = h.new_empty(-(-L // Q), batch, states, width)  # (L/Q, B, N, D)
        y = torch.empty_like(x)  # (L, B, D)
        for i, (s, e) in enumerate(_pieces(L, Q)):
            starts[i] = h
            _, H = _states(x[s:e], dt[s:e], At, B[s:e], h)  # (Q, B, N, D)
            y[s:e] = torch.matmul(C[s:e].unsqueeze(2), H).squeeze(2)  # (Q, B, D)
            h = H[-1]
        ctx.save_for_backward(x, dt, At, B, C, starts)
        ctx.Q = Q
        return y.transpose(0, 1), h.transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_state):
        x, dt, At, B, C, starts = ctx.saved_tensors
        L = x.shape[0]
        gy = grad_y.transpose(0, 1).contiguous()  # (L, B, D)
        gx, gdt = torch.empty_like(x), torch.empty_like(dt)  # (L, B, D)
        gB, gC = torch.empty_like(B), torch.empty_like(C)  # (L, B, N)
        gA = torch.zeros_like(At)  # (N, D)
        carry = grad_state.transpose(1, 2).contiguous()  # (B, N, D): dLoss/dh from later steps
        for i, (s, e) in reversed(list(enumerate(_pieces(L, ctx.Q)))):
            xs, dts, Bs, Cs, gys = x[s:e], dt[s:e], B[s:e], C[s:e], gy[s:e]
            decay, H = _states(xs, dts, At, Bs, starts[i])  # (Q, B, N, D) each
            # A row vector times a matrix: the same product as a column runs ten times slower.
            gC[s:e] = torch.matmul(gys.unsqueeze(2), H.transpose(2, 3)).squeeze(2)  # (Q, B, N)
            G = Cs.unsqueeze(3) * gys.unsqueeze(2)  # (Q, B, N, D): becomes dLoss/dh_t
            for t in range(e - s - 1, -1, -1):
                G[t] += carry
                carry = decay[t] * G[t]
            gu = torch.matmul(Bs.unsqueeze(2), G).squeeze(2)  # (Q, B, D): dLoss/d(dt x)
            gB[s:e] = torch.matmul((dts * xs).unsqueeze(2), G.transpose(2, 3)).squeeze(
                2
            )  # (Q, B, N)
            # d decay_t = G_t h_{t-1}; times decay_t gives dLoss/d(dt A).
            G[1:] *= H[:-1]
            G[0] *= starts[i]
            G *= decay
            gA += (G * dts.unsqueeze(2)).sum((0, 1))  # (N, D)
            gx[s:e] = gu * dts
            gdt[s:e] = gu * xs + (G * At).sum(2)
        back = (t.transpose(0, 1) for t in (gx, gdt))
        return *back, gA.t(), gB.transpose(0, 1), gC.transpose(0, 1), carry.transpose(1, 2)


def _states(x: Tensor, dt: Tensor, At: Tensor, B: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states of one piece: x, dt (Q, B, D), At (N, D), B (Q, B, N), h (B, N, D)."""
    decay = (dt.unsqueeze(2) * At).exp_()  # (Q, B, N, D)
    H = (dt * x).unsqueeze(2) * B.unsqueeze(3)  # (Q, B, N, D): inputs, then states in place
    for t in range(len(H)):
        h = H[t].addcmul_(decay[t], h)  # (B, N, D)
    return decay, H


def _piece_length(L: int, elements_per_step: int) -> int:
    return max(1, min(L, max(4, min(64, PIECE_ELEMENTS // max(1, elements_per_step)))))


def _pieces(L: int, Q: int) -> list[tuple[int, int]]:
    return [(s, min(s + Q, L)) for s in range(0, L, Q)]


def checkpointed_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor]:
    """`reference_scan` with recomputation: same values, a fraction of the memory."""
    return _CheckpointedScan.apply(x, dt, A, B, C, h0)


BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": reference_scan,
    "torch": checkpointed_scan,
}
