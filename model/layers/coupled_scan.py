"""The coupled scan: M chains of states that read one shared sum (Coupled Mamba, arXiv 2405.18014).

    h^m_t = S_{m,t} ((1 - alpha) h^m_{t-1} + alpha G_{t-1}) + Delta_{m,t} B_{m,t} x^m_t
    G_t   = sum_m pi_{m,t} h^m_t                y^m_t = C_{m,t} h^m_t

Glossary (code name: symbol)
    x: x^m   dt: Delta_m   A: log S / Delta   B: B_m   C: C_m   share: pi   leak: alpha   G: sum state
Sizes in shape comments: L frames, M streams, B windows, D inner width, N states, Q frames of a piece

Equation (6) of the paper is alpha = 1, pi = 1: the sum over streams, not their mean. Its gates add
up to P = sum_m S_m, which lies in (0, M), and the state grows with every step; shares that sum to 1
keep it bounded. The paper's equations (7), (8) use powers P^i of one gate and hold only where the
gates do not depend on the input; the recurrence G_t = (sum_m pi_m S_{m,t}) G_{t-1} + sum_m pi_m b^m_t
holds always, and one scan over it serves all streams.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of one (Q, M, B, N, D) piece: a megabyte in fp32, so that it stays in a core's cache.
PIECE_ELEMENTS = 1 << 18


def coupled_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    share: Tensor,
    leak: Tensor | None = None,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the coupled recurrence over time.

    Parameters
    ----------
    x, dt : (B, M, L, D); dt is the step after softplus
    A : (M, D, N), negative
    B, C : (B, M, L, N)
    share : (B, M, L), what each stream adds to the sum state; 0 where a stream is absent. Where
        all are 0 the sum state stays as it is. Callers keep its sum over M at 1 or below.
    leak : alpha in [0, 1], scalar; None is exactly 1: the streams keep nothing of their own and
        only the sum state is stored
    state : (B, 1, D, N) the sum state before the first frame, or (B, 1 + M, D, N) with the
        streams' own states behind it if `leak` is given; zeros if absent
    return_state : also return the state after the last frame, in the same form

    Returns y (B, M, L, D) in the dtype of x, and the state if asked for. States are fp32 (float64
    for float64 input) whatever the dtype of x.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    batch, M, _, D = x.shape
    if state is None:
        chains = 1 if leak is None else 1 + M
        state = x.new_zeros(batch, chains, D, A.shape[-1], dtype=dtype)  # (B, 1 | 1 + M, D, N)
    given = [t.to(dtype) for t in (x, dt, A, B, C, share)]
    with torch.autocast(x.device.type, enabled=False):
        y, last = _CoupledScan.apply(
            *given, None if leak is None else leak.to(dtype), state.to(dtype)
        )
    y = y.to(x.dtype)  # (B, M, L, D)
    return (y, last) if return_state else y


class _CoupledScan(torch.autograd.Function):
    """Exact scan that stores the states at the start of every piece of Q frames only.

    With alpha = 1 that is the sum state alone, M times less than for M independent scans. Inside,
    time comes first and the inner width last.
    """

    @staticmethod
    def forward(ctx, x, dt, A, B, C, share, leak, state):
        x, dt, B, C = (t.permute(2, 1, 0, 3).contiguous() for t in (x, dt, B, C))  # (L, M, B, D|N)
        At = A.transpose(1, 2).unsqueeze(1).contiguous()  # (M, 1, N, D)
        share = share.permute(2, 1, 0)[..., None, None].contiguous()  # (L, M, B, 1, 1)
        L, M, batch, D = x.shape
        Q = max(1, min(L, 64, max(4, PIECE_ELEMENTS // max(1, M * batch * At[0].numel()))))
        now = state.permute(1, 0, 3, 2).contiguous()  # (1 | 1 + M, B, N, D)
        starts = now.new_empty(-(-L // Q), *now.shape)  # (L/Q, 1 | 1 + M, B, N, D)
        y = torch.empty_like(x)  # (L, M, B, D)
        for i, s in enumerate(range(0, L, Q)):
            e = min(s + Q, L)
            starts[i] = now
            _, _, H, G = _states(x[s:e], dt[s:e], At, B[s:e], share[s:e], leak, now)
            y[s:e] = torch.matmul(C[s:e].unsqueeze(3), H).squeeze(3)  # (Q, M, B, D)
            now = G[-1:] if leak is None else torch.cat([G[-1:], H[-1]])
        ctx.save_for_backward(x, dt, At, B, C, share, leak, starts)
        ctx.Q = Q
        return y.permute(2, 1, 0, 3), now.permute(1, 0, 3, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, grad_state):
        x, dt, At, B, C, share, leak, starts = ctx.saved_tensors
        L, Q = x.shape[0], ctx.Q
        gy = grad_y.permute(2, 1, 0, 3).contiguous()  # (L, M, B, D)
        gx, gdt = torch.empty_like(x), torch.empty_like(dt)  # (L, M, B, D)
        gB, gC = torch.empty_like(B), torch.empty_like(C)  # (L, M, B, N)
        gshare = torch.empty_like(share) if ctx.needs_input_grad[5] else None  # (L, M, B, 1, 1)
        gA = torch.zeros_like(At)  # (M, 1, N, D)
        gleak = None if leak is None else torch.zeros_like(leak)
        carry = grad_state.permute(1, 0, 3, 2).contiguous()  # (1 | 1 + M, B, N, D), from later on
        for s in reversed(range(0, L, Q)):
            e = min(s + Q, L)
            xs, dts, Bs, pi = x[s:e], dt[s:e], B[s:e], share[s:e]
            S, before, H, G = _states(xs, dts, At, Bs, pi, leak, starts[s // Q])
            # A row vector times a matrix: the same product as a column runs ten times slower.
            gC[s:e] = torch.matmul(gy[s:e].unsqueeze(3), H.transpose(3, 4)).squeeze(3)
            q = C[s:e].unsqueeze(4) * gy[s:e].unsqueeze(3)  # (Q, M, B, N, D), becomes dLoss/dh^m_t
            if leak is None:
                lam, carry = _adjoint_of_sum(q, S, pi, carry)  # (Q, B, N, D), (1, B, N, D)
            else:
                prior = torch.cat([starts[s // Q, :1], G[:-1]])  # (Q, B, N, D): G_{t-1}
                own = torch.cat([starts[s // Q, 1:].unsqueeze(0), H[:-1]])  # (Q, M, B, N, D)
                lam, carry = _adjoint_of_chains(q, S, pi, leak, carry)
                # d(mix)/d(alpha) = G_{t-1} - h^m_{t-1}
                gleak += (S * q * (prior.unsqueeze(1) - own)).sum()
            if gshare is not None:
                # Where nobody is present the shares are not looked at.
                gshare[s:e] = (lam.unsqueeze(1) * H).sum((3, 4), keepdim=True)
                gshare[s:e] *= 1 - _hold(pi).unsqueeze(1)
            gu = torch.matmul(Bs.unsqueeze(3), q).squeeze(3)  # (Q, M, B, D): dLoss/d(dt x)
            gB[s:e] = torch.matmul((dts * xs).unsqueeze(3), q.transpose(3, 4)).squeeze(3)
            # dLoss/dS = q mix; times S gives dLoss/d(dt A).
            q *= before if leak is not None else before.unsqueeze(1)
            q *= S  # (Q, M, B, N, D)
            gA += (q * dts.unsqueeze(3)).sum((0, 2)).unsqueeze(1)
            gx[s:e] = gu * dts
            gdt[s:e] = gu * xs + (q * At).sum(3)
        back = [t.permute(2, 1, 0, 3) for t in (gx, gdt, gB, gC)]
        if gshare is not None:
            gshare = gshare.squeeze(-1).squeeze(-1).permute(2, 1, 0)  # (B, M, L)
        gA = gA.squeeze(1).transpose(1, 2)  # (M, D, N)
        return back[0], back[1], gA, back[2], back[3], gshare, gleak, carry.permute(1, 0, 3, 2)


def _states(
    x: Tensor, dt: Tensor, At: Tensor, B: Tensor, share: Tensor, leak: Tensor | None, now: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gates S, what each gate multiplies, states H of the streams and sum states G of one piece.

    x, dt (Q, M, B, D), At (M, 1, N, D), B (Q, M, B, N), share (Q, M, B, 1, 1), now (1 | 1 + M, B,
    N, D). S, H (Q, M, B, N, D); G (Q, B, N, D); the second one is (Q, B, N, D) for alpha = 1, where
    all streams read the same, else (Q, M, B, N, D).
    """
    S = (dt.unsqueeze(3) * At).exp_()  # (Q, M, B, N, D)
    H = (dt * x).unsqueeze(3) * B.unsqueeze(4)  # (Q, M, B, N, D): inputs, then states in place
    hold = _hold(share)  # (Q, B, 1, 1)
    if leak is None:
        P = _weighted_sum(share, S).add_(hold)  # (Q, B, N, D)
        G = _weighted_sum(share, H)  # (Q, B, N, D): inputs, then sum states in place
        g = now[0]
        for t in range(len(G)):
            g = G[t].addcmul_(P[t], g)  # (B, N, D)
        before = torch.cat([now, G[:-1]])  # (Q, B, N, D)
        return S, before, H.addcmul_(S, before.unsqueeze(1)), G
    before = torch.empty_like(S)
    G = S.new_empty(len(S), *now.shape[1:])  # (Q, B, N, D)
    g, h = now[0], now[1:]  # (B, N, D), (M, B, N, D)
    for t in range(len(S)):
        before[t] = torch.lerp(h, g.expand_as(h), leak)  # (M, B, N, D)
        h = H[t].addcmul_(S[t], before[t])
        g = G[t] = (share[t] * h).sum(0) + hold[t] * g
    return S, before, H, G


def _adjoint_of_sum(q: Tensor, S: Tensor, share: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = 1: lambda_t = dLoss/dG_t of a piece, and of the frame before it; q in place.

    q comes in as C dy and leaves as dLoss/dh^m_t = pi_m lambda_t + C dy.
    """
    P = _weighted_sum(share, S).add_(_hold(share))  # (Q, B, N, D)
    V = (S * q).sum(1)  # (Q, B, N, D)
    lam = torch.empty_like(V)
    g = carry[0]
    for t in range(len(q) - 1, -1, -1):
        lam[t] = g
        g = V[t].addcmul_(P[t], g)  # (B, N, D)
    q.addcmul_(share, lam.unsqueeze(1))
    return lam, g.unsqueeze(0)


def _adjoint_of_chains(
    q: Tensor, S: Tensor, share: Tensor, leak: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """`_adjoint_of_sum` for streams that keep (1 - alpha) of their own state."""
    hold = _hold(share)  # (Q, B, 1, 1)
    lam = q.new_empty(len(q), *q.shape[2:])  # (Q, B, N, D)
    g, own = carry[0], carry[1:]  # (B, N, D), (M, B, N, D)
    for t in range(len(q) - 1, -1, -1):
        lam[t] = g
        q[t] += own
        q[t].addcmul_(share[t], g.unsqueeze(0))
        through = S[t] * q[t]  # (M, B, N, D)
        own = (1 - leak) * through
        g = hold[t] * g + leak * through.sum(0)
    return lam, torch.cat([g.unsqueeze(0), own])


def _weighted_sum(share: Tensor, x: Tensor) -> Tensor:
    """sum_m pi_m x_m: (Q, M, B, 1, 1), (Q, M, B, N, D) -> (Q, B, N, D), without a product tensor."""
    total = share[:, 0] * x[:, 0]
    for m in range(1, x.shape[1]):
        total.addcmul_(share[:, m], x[:, m])
    return total


def _hold(share: Tensor) -> Tensor:
    """1 where no stream is present, so that the sum state stays: (Q, M, B, 1, 1) -> (Q, B, 1, 1)."""
    return (share == 0).all(1).to(share.dtype)
