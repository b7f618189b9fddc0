"""The selective scan for GPUs: one fused kernel forward and one backward, in Triton.

A program walks one batch row and one block of channels through time with the state (channels, N) in
registers. The forward kernel keeps the state at the start of every piece of Q frames. The backward
kernel runs a piece again from there, writes the states before every frame to a scratch area of its
own (small enough for the L2 cache), and walks the piece backwards; decays are computed again, never
divided by. Sums over channel blocks and batch rows are left to the caller, in a fixed order, so
results do not depend on scheduling.

x, dt, z, y (B, L, D); B, C (B, L, N); A (D, N); states (B, D, N); all contiguous, one number type.
"""

import triton
import triton.language as tl


@triton.jit
def scan_forward(
    x_in,
    dt_in,
    A_in,
    B_in,
    C_in,
    D_in,
    z_in,
    h0_in,
    y_out,
    checkpoints,
    last_out,
    L,
    width,
    N,
    Q: tl.constexpr,
    REVERSE: tl.constexpr,
    SKIP: tl.constexpr,
    GATED: tl.constexpr,
    KEEP: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """y, the last state, and with KEEP the checkpoints (B, pieces, D, N)."""
    b = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    in_d, in_n = d < width, n < N
    tile = d[:, None] * N + n[None, :]
    in_tile = in_d[:, None] & in_n[None, :]
    pieces = (L + Q - 1) // Q
    A = tl.load(A_in + tile, mask=in_tile, other=0.0)
    h = tl.load(h0_in + b * width * N + tile, mask=in_tile, other=0.0)
    if SKIP:
        skip = tl.load(D_in + d, mask=in_d, other=0.0)
    for s in range(0, L):
        if KEEP:  # noqa: SIM102  (decided when compiling, the next line when running)
            if s % Q == 0:
                tl.store(checkpoints + (b * pieces + s // Q) * width * N + tile, h, mask=in_tile)
        t = s
        if REVERSE:
            t = L - 1 - s
        row = (b * L + t) * width + d
        x = tl.load(x_in + row, mask=in_d, other=0.0)
        step = tl.load(dt_in + row, mask=in_d, other=0.0)
        B = tl.load(B_in + (b * L + t) * N + n, mask=in_n, other=0.0)
        C = tl.load(C_in + (b * L + t) * N + n, mask=in_n, other=0.0)
        h = tl.exp(step[:, None] * A) * h + (step * x)[:, None] * B[None, :]
        y = tl.sum(h * C[None, :], axis=1)
        if SKIP:
            y += skip * x
        if GATED:
            z = tl.load(z_in + row, mask=in_d, other=0.0)
            y = y * z / (1.0 + tl.exp(-z))
        tl.store(y_out + row, y, mask=in_d)
    tl.store(last_out + b * width * N + tile, h, mask=in_tile)


@triton.jit
def scan_backward(
    x_in,
    dt_in,
    A_in,
    B_in,
    C_in,
    D_in,
    z_in,
    checkpoints,
    gy_in,
    glast_in,
    scratch,
    gx_out,
    gdt_out,
    gA_out,
    gB_out,
    gC_out,
    gD_out,
    gz_out,
    gh0_out,
    batch,
    L,
    width,
    N,
    Q: tl.constexpr,
    REVERSE: tl.constexpr,
    SKIP: tl.constexpr,
    GATED: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):
    """All gradients: gA (B, D, N) and gD (B, D) per batch row, gB, gC (blocks, B, L, N)."""
    b = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    d = block * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    in_d, in_n = d < width, n < N
    tile = d[:, None] * N + n[None, :]
    in_tile = in_d[:, None] & in_n[None, :]
    pieces = (L + Q - 1) // Q
    A = tl.load(A_in + tile, mask=in_tile, other=0.0)
    carry = tl.load(glast_in + b * width * N + tile, mask=in_tile, other=0.0)
    gA = tl.zeros_like(A)
    if SKIP:
        skip = tl.load(D_in + d, mask=in_d, other=0.0)
        gD = tl.zeros_like(skip)
    for back in range(0, pieces):
        p = pieces - 1 - back
        first = p * Q
        length = tl.minimum(Q, L - first)
        h = tl.load(checkpoints + (b * pieces + p) * width * N + tile, mask=in_tile, other=0.0)
        for q in range(0, length):
            tl.store(scratch + (b * Q + q) * width * N + tile, h, mask=in_tile)
            t = first + q
            if REVERSE:
                t = L - 1 - t
            row = (b * L + t) * width + d
            x = tl.load(x_in + row, mask=in_d, other=0.0)
            step = tl.load(dt_in + row, mask=in_d, other=0.0)
            B = tl.load(B_in + (b * L + t) * N + n, mask=in_n, other=0.0)
            h = tl.exp(step[:, None] * A) * h + (step * x)[:, None] * B[None, :]
        tl.debug_barrier()  # the layout of the loads below may be another one
        for r in range(0, length):
            q = length - 1 - r
            t = first + q
            if REVERSE:
                t = L - 1 - t
            row = (b * L + t) * width + d
            x = tl.load(x_in + row, mask=in_d, other=0.0)
            step = tl.load(dt_in + row, mask=in_d, other=0.0)
            B = tl.load(B_in + (b * L + t) * N + n, mask=in_n, other=0.0)
            C = tl.load(C_in + (b * L + t) * N + n, mask=in_n, other=0.0)
            gy = tl.load(gy_in + row, mask=in_d, other=0.0)
            before = tl.load(scratch + (b * Q + q) * width * N + tile, mask=in_tile, other=0.0)
            decay = tl.exp(step[:, None] * A)
            u = step * x
            h = decay * before + u[:, None] * B[None, :]
            if GATED:
                z = tl.load(z_in + row, mask=in_d, other=0.0)
                sigmoid = 1.0 / (1.0 + tl.exp(-z))
                y = tl.sum(h * C[None, :], axis=1)
                if SKIP:
                    y += skip * x
                gz = gy * y * sigmoid * (1.0 + z * (1.0 - sigmoid))
                tl.store(gz_out + row, gz, mask=in_d)
                gy = gy * z * sigmoid
            G = carry + gy[:, None] * C[None, :]  # dLoss/dh_t
            sums = ((block * batch + b) * L + t) * N + n
            tl.store(gC_out + sums, tl.sum(gy[:, None] * h, axis=0), mask=in_n)
            tl.store(gB_out + sums, tl.sum(u[:, None] * G, axis=0), mask=in_n)
            gu = tl.sum(G * B[None, :], axis=1)
            carry = G * decay
            power = carry * before  # dLoss/d(dt A)
            gA += power * step[:, None]
            gdt = gu * x + tl.sum(power * A, axis=1)
            gx = gu * step
            if SKIP:
                gx += gy * skip
                gD += gy * x
            tl.store(gx_out + row, gx, mask=in_d)
            tl.store(gdt_out + row, gdt, mask=in_d)
        tl.debug_barrier()
    tl.store(gA_out + b * width * N + tile, gA, mask=in_tile)
    tl.store(gh0_out + b * width * N + tile, carry, mask=in_tile)
    if SKIP:
        tl.store(gD_out + b * width + d, gD, mask=in_d)


@triton.jit
def gated_forward(a_in, b_in, h0_in, states_out, L, K, WIDE: tl.constexpr):
    """All states of h_t = a_t h_{t-1} + b_t; a, b, states (B, L, K), h0 (B, K)."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    inside = k < K
    h = tl.load(h0_in + row * K + k, mask=inside, other=0.0)
    for t in range(0, L):
        i = (row * L + t) * K + k
        h = tl.load(a_in + i, mask=inside, other=0.0) * h + tl.load(
            b_in + i, mask=inside, other=0.0
        )
        tl.store(states_out + i, h, mask=inside)


@triton.jit
def gated_backward(
    a_in, states_in, h0_in, grad_in, ga_out, gb_out, gh0_out, L, K, WIDE: tl.constexpr
):
    """Gradients of a, b (B, L, K) and h0 (B, K)."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    inside = k < K
    h0 = tl.load(h0_in + row * K + k, mask=inside, other=0.0)
    carry = tl.zeros_like(h0)
    for s in range(0, L):
        t = L - 1 - s
        i = (row * L + t) * K + k
        total = tl.load(grad_in + i, mask=inside, other=0.0) + carry
        before = h0
        if t > 0:
            before = tl.load(states_in + i - K, mask=inside, other=0.0)
        tl.store(gb_out + i, total, mask=inside)
        tl.store(ga_out + i, total * before, mask=inside)
        carry = total * tl.load(a_in + i, mask=inside, other=0.0)
    tl.store(gh0_out + row * K + k, carry, mask=inside)
