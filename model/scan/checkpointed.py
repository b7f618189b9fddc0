"""The scans in plain torch operations, for any device: exact, with little memory.

The selective scan keeps the state only at the start of every piece of Q steps and computes the steps
between again in the backward pass, so memory does not grow with L x N.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of one (Q, B, N, D) piece: half a megabyte in fp32, so that a piece stays in a core's cache.
PIECE_ELEMENTS = 1 << 17
# Elements of one step on a CPU; larger batches go through in parts, so that the scratch memory of a
# few steps still fits into the processor's cache.
STEP_ELEMENTS = 1 << 18


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
        scratch = _scratch(h, Q, 2)
        for i, (s, e) in enumerate(_pieces(L, Q)):
            starts[i] = h
            _, H = _states(x[s:e], dt[s:e], At, B[s:e], starts[i], scratch)  # (Q, B, N, D)
            y[s:e] = torch.matmul(C[s:e].unsqueeze(2), H).squeeze(2)  # (Q, B, D)
            h = H[-1]
        ctx.save_for_backward(x, dt, At, B, C, starts)
        ctx.Q = Q
        # A copy also where `contiguous` would give a view of the scratch memory.
        return y.transpose(0, 1), h.transpose(1, 2).clone(memory_format=torch.contiguous_format)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_state):
        # Whoever calls backward() under autocast gets fp32 products here, as in the forward pass.
        with torch.autocast(grad_y.device.type, enabled=False):
            return _CheckpointedScan._gradients(ctx, grad_y, grad_state)

    @staticmethod
    def _gradients(ctx, grad_y, grad_state):
        x, dt, At, B, C, starts = ctx.saved_tensors
        L = x.shape[0]
        gy = grad_y.transpose(0, 1).contiguous()  # (L, B, D)
        gx, gdt = torch.empty_like(x), torch.empty_like(dt)  # (L, B, D)
        gB, gC = torch.empty_like(B), torch.empty_like(C)  # (L, B, N)
        gA = torch.zeros_like(At)  # (N, D)
        # (B, N, D): dLoss/dh from later steps
        carry = grad_state.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        scratch = _scratch(carry, ctx.Q, 3)
        for i, (s, e) in reversed(list(enumerate(_pieces(L, ctx.Q)))):
            xs, dts, Bs, Cs, gys = x[s:e], dt[s:e], B[s:e], C[s:e], gy[s:e]
            decay, H = _states(xs, dts, At, Bs, starts[i], scratch)  # (Q, B, N, D) each
            # A row vector times a matrix: the same product as a column runs ten times slower.
            gC[s:e] = torch.matmul(gys.unsqueeze(2), H.transpose(2, 3)).squeeze(2)  # (Q, B, N)
            # (Q, B, N, D): becomes dLoss/dh_t
            G = torch.mul(Cs.unsqueeze(3), gys.unsqueeze(2), out=scratch[2][: e - s])
            back = carry
            for t in range(e - s - 1, -1, -1):
                G[t] += back
                back = decay[t].mul_(G[t])  # the decays turn into what each step hands back
            carry.copy_(back)
            gu = torch.matmul(Bs.unsqueeze(2), G).squeeze(2)  # (Q, B, D): dLoss/d(dt x)
            gB[s:e] = torch.matmul((dts * xs).unsqueeze(2), G.transpose(2, 3)).squeeze(2)
            # d decay_t = G_t h_{t-1}; times decay_t gives dLoss/d(dt A).
            torch.mul(decay[1:], H[:-1], out=G[1:])
            torch.mul(decay[0], starts[i], out=G[0])
            gdt[s:e] = torch.mul(G, At, out=H).sum(2)
            gA += torch.mul(G, dts.unsqueeze(2), out=H).sum((0, 1))  # (N, D)
            gx[s:e] = gu * dts
            gdt[s:e] += gu * xs
        gx, gdt, gB, gC = (t.transpose(0, 1) for t in (gx, gdt, gB, gC))
        return gx, gdt, gA.t(), gB, gC, carry.transpose(1, 2)


def _scratch(state: Tensor, Q: int, count: int) -> list[Tensor]:
    """Memory that every piece uses again; fresh memory would cost more than the arithmetic."""
    return [state.new_empty(Q, *state.shape) for _ in range(count)]


def _states(
    x: Tensor, dt: Tensor, At: Tensor, B: Tensor, h: Tensor, scratch: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Decays and states of one piece: x, dt (Q, B, D), At (N, D), B (Q, B, N), h (B, N, D)."""
    decay, H = (s[: len(x)] for s in scratch[:2])  # (Q, B, N, D)
    torch.mul(dt.unsqueeze(2), At, out=decay).exp_()
    torch.mul((dt * x).unsqueeze(2), B.unsqueeze(3), out=H)  # inputs, then states in place
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
    rows = max(1, STEP_ELEMENTS // A.numel())
    if x.device.type != "cpu" or len(x) <= rows:
        return _CheckpointedScan.apply(x, dt, A, B, C, h0)
    parts = zip(*(t.split(rows) for t in (x, dt, B, C, h0)), strict=True)
    done = [_CheckpointedScan.apply(x, dt, A, B, C, h0) for x, dt, B, C, h0 in parts]
    return torch.cat([y for y, _ in done]), torch.cat([h for _, h in done])


class _GatedScan(torch.autograd.Function):
    """All states are the result, so the backward pass needs nothing else: the same scan in reverse."""

    @staticmethod
    def forward(ctx, a, b, h0):
        states = torch.empty_like(b)  # (B, L, K)
        h = h0
        for t in range(b.shape[1]):
            h = torch.addcmul(b[:, t], a[:, t], h, out=states[:, t])  # (B, K)
        ctx.save_for_backward(a, states, h0)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        a, states, h0 = ctx.saved_tensors
        grad_b = torch.empty_like(states)  # (B, L, K): dLoss/dh_t
        carry = torch.zeros_like(h0)
        for t in range(a.shape[1] - 1, -1, -1):
            total = torch.add(grad[:, t], carry, out=grad_b[:, t])  # (B, K)
            carry = a[:, t] * total
        grad_a = torch.empty_like(a)  # (B, L, K)
        torch.mul(grad_b[:, 1:], states[:, :-1], out=grad_a[:, 1:])
        torch.mul(grad_b[:, 0], h0, out=grad_a[:, 0])
        return grad_a, grad_b, carry


def checkpointed_gated(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """`reference_gated` with a closed-form backward pass."""
    return _GatedScan.apply(a.contiguous(), b.contiguous(), h0)
