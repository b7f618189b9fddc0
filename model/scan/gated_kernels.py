"""The gated scan h_t = a_t h_{t-1} + b_t for CPUs: every value is read and written once.

Tasks are (batch row, strip of the K independent recurrences); arrays are flat and contiguous.
"""

from numba import njit

from model.scan.compiling import compiled


@njit(nogil=True, error_model="numpy")
def gated_forward(arrays, sizes):
    """states (B, L, K) from a, b (B, L, K) and h0 (B, K)."""
    a, b, h0, states = arrays
    first, last, strips, L, K = sizes
    for task in range(first, last):
        row, strip = task // strips, task % strips
        k0, k1 = strip * K // strips, (strip + 1) * K // strips
        before = h0[row * K + k0 : row * K + k1]
        for t in range(L):
            i = (row * L + t) * K
            a_t, b_t, h = a[i + k0 : i + k1], b[i + k0 : i + k1], states[i + k0 : i + k1]
            for k in range(k1 - k0):
                h[k] = a_t[k] * before[k] + b_t[k]
            before = h


@njit(nogil=True, error_model="numpy")
def gated_backward(arrays, sizes):
    """Gradients of a and b; `carry` (B, K), zero before, holds that of h0 after."""
    a, states, h0, grad, ga, gb, carry = arrays
    first, last, strips, L, K = sizes
    for task in range(first, last):
        row, strip = task // strips, task % strips
        k0, k1 = strip * K // strips, (strip + 1) * K // strips
        back = carry[row * K + k0 : row * K + k1]
        for t in range(L - 1, -1, -1):
            i = (row * L + t) * K
            a_t, g_t = a[i + k0 : i + k1], grad[i + k0 : i + k1]
            ga_t, gb_t = ga[i + k0 : i + k1], gb[i + k0 : i + k1]
            before = states[i - K + k0 : i - K + k1] if t > 0 else h0[row * K + k0 : row * K + k1]
            for k in range(k1 - k0):
                total = g_t[k] + back[k]
                gb_t[k] = total
                ga_t[k] = total * before[k]
                back[k] = total * a_t[k]


@compiled
def gated_forward_32(arrays, sizes):
    gated_forward(arrays, sizes)


@compiled
def gated_forward_64(arrays, sizes):
    gated_forward(arrays, sizes)


@compiled
def gated_backward_32(arrays, sizes):
    gated_backward(arrays, sizes)


@compiled
def gated_backward_64(arrays, sizes):
    gated_backward(arrays, sizes)
