"""The selective scan for CPUs: one fused kernel forward and one backward, compiled by numba.

Explicit vectors (`Lanes`) rather than loops for LLVM to vectorise: a block of `WIDTH` channels is
one value, so the sums over N stay in registers and the speed does not hang on what the vectoriser
makes of aliasing. LLVM splits a vector over whatever registers the processor has.

Memory. `WIDTH` neighbouring channels form a block; states are stored (block, N, WIDTH). Time is cut
into pieces of Q frames. The forward kernel keeps the state at the start of every piece; the
backward kernel runs a piece again from there, keeping states and decays in a scratch area that
stays in the core's cache, and then walks it backwards. Nothing is ever divided by a decay.

Tasks are (batch row, group of blocks). Sums over the blocks of a group are taken in one order
inside a task, and every task writes to its own place: results do not depend on scheduling.

All kernels take flat arrays and strides, so that slices and reversed time need no copies. They
release the interpreter lock; `model.scan.native` runs them on as many threads as torch has.
This file holds everything that is compiled here, because numba renews its cache by file.
"""

import math
import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from model.scan.compiling import compiled

WIDTH = 32  # channels per block: two AVX-512 or four AVX2 registers, which hides latencies

LOG2_E = float(np.float32(math.log2(math.e)))
LOG2_E_REST = math.log2(math.e) - LOG2_E  # what fp32 cannot hold of it
# (2^r - 1) / r on [-1/2, 1/2], least squares at Chebyshev nodes, lowest power first. Together with
# the leading 1 the relative error is 5e-9, and exp(0) is exactly 1.
EXP2_COEFFICIENTS = (
    0.6931471880293426,
    0.24022650922342717,
    0.05550357104252961,
    0.00961805666989095,
    0.0013390867351404268,
    0.0001546144746157552,
)


class Lanes(types.Type):
    """`WIDTH` numbers of one type, as one LLVM vector."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype}, {WIDTH})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, WIDTH))


def _address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _vector_type(context, dtype):
    return ir.VectorType(context.get_value_type(dtype), WIDTH)


def _splat(vector, value):
    return ir.Constant(vector, [value] * WIDTH)


def _fused(builder, a, b, c):
    name = f"llvm.fmuladd.v{WIDTH}{'f32' if str(a.type.element) == 'float' else 'f64'}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


@intrinsic
def load(typingctx, array, index):
    """Lanes array[index : index + WIDTH], unchecked."""

    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        pointer = _address(context, builder, kind, *args)
        vector = _vector_type(context, kind.dtype)
        pointer = builder.bitcast(pointer, vector.as_pointer())
        return builder.load(pointer, align=kind.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    """array[index : index + WIDTH] = value, unchecked."""

    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        pointer = _address(context, builder, kind, *args[:2])
        pointer = builder.bitcast(pointer, args[2].type.as_pointer())
        builder.store(args[2], pointer, align=kind.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def spread(typingctx, array, index):
    """array[index] in every lane, unchecked."""

    def codegen(context, builder, signature, args):
        kind = signature.args[0]
        value = builder.load(_address(context, builder, kind, *args))
        vector = _vector_type(context, kind.dtype)
        first = builder.insert_element(
            ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)

    return Lanes(array.dtype)(array, types.intp), codegen


def _filled(number):
    @intrinsic
    def filled(typingctx, array):
        def codegen(context, builder, signature, args):
            return _splat(_vector_type(context, signature.args[0].dtype), number)

        return Lanes(array.dtype)(array), codegen

    return filled


zeros, ones = _filled(0.0), _filled(1.0)  # in every lane, of an array's type


def _binary(method):
    @intrinsic
    def operation(typingctx, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, method)(*args)

        return a(a, b), codegen

    return operation


_add, _sub, _mul, _div = (_binary(m) for m in ("fadd", "fsub", "fmul", "fdiv"))


def _both_lanes(a, b):
    return isinstance(a, Lanes) and a == b


@overload(operator.add)
def _overload_add(a, b):
    if _both_lanes(a, b):
        return lambda a, b: _add(a, b)


@overload(operator.sub)
def _overload_sub(a, b):
    if _both_lanes(a, b):
        return lambda a, b: _sub(a, b)


@overload(operator.mul)
def _overload_mul(a, b):
    if _both_lanes(a, b):
        return lambda a, b: _mul(a, b)


@overload(operator.truediv)
def _overload_div(a, b):
    if _both_lanes(a, b):
        return lambda a, b: _div(a, b)


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, fused where the processor can."""

    def codegen(context, builder, signature, args):
        return _fused(builder, *args)

    return a(a, b, c), codegen


@intrinsic
def total(typingctx, a):
    """Sum over the lanes, in a fixed order."""

    def codegen(context, builder, signature, args):
        vector = args[0].type
        name = f"llvm.vector.reduce.fadd.v{WIDTH}{'f32' if a.dtype == types.float32 else 'f64'}"
        kind = ir.FunctionType(vector.element, [vector.element, vector])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        zero = ir.Constant(vector.element, 0.0)
        return builder.call(function, [zero, args[0]], fastmath=("reassoc",))

    return a.dtype(a), codegen


@intrinsic
def exp(typingctx, x):
    """exp in every lane: the C library's for float64, a polynomial within 2e-7 for float32.

    float32: exp(x) = 2^k 2^r with k = round(x log2 e); adding 1.5 * 2^23 rounds and leaves k in the
    low bits, which an integer shift turns into the exponent of 2^k. Results below the smallest
    normal number are 0, from 2^127.5 on infinite; NaN stays NaN.
    """

    def double(context, builder, signature, args):
        vector = args[0].type
        kind = ir.FunctionType(vector, [vector])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.exp.v{WIDTH}f64")
        return builder.call(function, args)

    def single(context, builder, signature, args):
        vector = args[0].type
        integers = ir.VectorType(ir.IntType(32), WIDTH)
        log2e, magic = _splat(vector, LOG2_E), _splat(vector, 12582912.0)
        t = builder.fmul(args[0], log2e)
        shifted = builder.fadd(t, magic)
        k = builder.fsub(shifted, magic)
        r = _fused(builder, args[0], log2e, builder.fneg(k))
        r = _fused(builder, args[0], _splat(vector, LOG2_E_REST), r)
        p = _splat(vector, EXP2_COEFFICIENTS[-1])
        for c in (*EXP2_COEFFICIENTS[-2::-1], 1.0):
            p = _fused(builder, p, r, _splat(vector, c))
        bits = builder.add(builder.bitcast(shifted, integers), ir.Constant(integers, [127] * WIDTH))
        scale = builder.shl(bits, ir.Constant(integers, [23] * WIDTH))
        value = builder.fmul(p, builder.bitcast(scale, vector))
        low = builder.fcmp_ordered("<", t, _splat(vector, -126.0))
        value = builder.select(low, _splat(vector, 0.0), value)
        high = builder.fcmp_ordered(">", t, _splat(vector, 128.0))
        return builder.select(high, _splat(vector, math.inf), value)

    return x(x), single if x.dtype == types.float32 else double


# `sizes` of both kernels, in this order (strides in elements, per batch row and per frame):
#   first and last task + 1, groups, blocks, L, N, Q, reverse,
#   strides of x, dt, B, C, z, gate given, skip given, checkpoints wanted


@njit(nogil=True, error_model="numpy")
def scan_forward(arrays, sizes):
    """y and the final state; `states` holds h0 before and the final state after."""
    x, dt, A, B, C, D, z, states, checkpoints, y = arrays
    first, last, groups, blocks, L, N, Q, reverse = sizes[:8]
    xb, xt, dtb, dtt, Bb, Bt, Cb, Ct, zb, zt, gated, skip, keep = sizes[8:]
    pieces = (L + Q - 1) // Q
    block_size = N * WIDTH
    zero = zeros(A)
    one = ones(A)
    for task in range(first, last):
        b, g = task // groups, task % groups
        for p in range(pieces):
            for k in range(g * blocks // groups, (g + 1) * blocks // groups):
                h0 = (b * blocks + k) * block_size
                a0 = k * block_size
                d0 = k * WIDTH
                if keep:
                    c0 = ((b * pieces + p) * blocks + k) * block_size
                    for n in range(N):
                        i = n * WIDTH
                        store(checkpoints, c0 + i, load(states, h0 + i))
                for s in range(p * Q, min(L, (p + 1) * Q)):
                    t = L - 1 - s if reverse else s
                    xs = load(x, b * xb + t * xt + d0)
                    step = load(dt, b * dtb + t * dtt + d0)
                    u = step * xs
                    total_y = zero
                    B0, C0 = b * Bb + t * Bt, b * Cb + t * Ct
                    for n in range(N):
                        i = n * WIDTH
                        decay = exp(step * load(A, a0 + i))
                        h = fma(decay, load(states, h0 + i), u * spread(B, B0 + n))
                        store(states, h0 + i, h)
                        total_y = fma(spread(C, C0 + n), h, total_y)
                    if skip:
                        total_y = fma(load(D, d0), xs, total_y)
                    if gated:
                        zs = load(z, b * zb + t * zt + d0)
                        total_y = total_y * zs / (one + exp(zero - zs))
                    store(y, ((b * L + t) * blocks + k) * WIDTH, total_y)


@njit(nogil=True, error_model="numpy")
def scan_backward(arrays, sizes):
    """All gradients; `carry` holds that of the final state before and that of h0 after.

    gA, gD are per batch row, gB and gC per group: the caller adds them up.
    """
    x, dt, A, B, C, D, z, checkpoints, gy, carry, gx, gdt, gA, gB, gC, gD, gz = arrays
    first, last, groups, blocks, L, N, Q, reverse = sizes[:8]
    xb, xt, dtb, dtt, Bb, Bt, Cb, Ct, zb, zt, gated, skip, keep = sizes[8:]
    batch = len(gA) // (len(A))
    pieces = (L + Q - 1) // Q
    block_size = N * WIDTH
    H = np.empty((Q + 1) * block_size, A.dtype)
    decays = np.empty(Q * block_size, A.dtype)
    sum_B = np.empty(Q * block_size, A.dtype)
    sum_C = np.empty(Q * block_size, A.dtype)
    ys = np.empty(Q * WIDTH, A.dtype)
    zero = zeros(A)
    one = ones(A)
    for task in range(first, last):
        b, g = task // groups, task % groups
        for p in range(pieces - 1, -1, -1):
            length = min(L, (p + 1) * Q) - p * Q
            for i in range(0, length * block_size, WIDTH):
                store(sum_B, i, zero)
                store(sum_C, i, zero)
            for k in range(g * blocks // groups, (g + 1) * blocks // groups):
                h0 = (b * blocks + k) * block_size
                a0 = k * block_size
                d0 = k * WIDTH
                c0 = ((b * pieces + p) * blocks + k) * block_size
                for n in range(N):
                    i = n * WIDTH
                    store(H, i, load(checkpoints, c0 + i))
                for q in range(length):
                    t = L - 1 - p * Q - q if reverse else p * Q + q
                    step = load(dt, b * dtb + t * dtt + d0)
                    u = step * load(x, b * xb + t * xt + d0)
                    total_y = zero
                    B0, C0 = b * Bb + t * Bt, b * Cb + t * Ct
                    for n in range(N):
                        i = q * block_size + n * WIDTH
                        decay = exp(step * load(A, a0 + n * WIDTH))
                        h = fma(decay, load(H, i), u * spread(B, B0 + n))
                        store(decays, i, decay)
                        store(H, i + block_size, h)
                        if gated:
                            total_y = fma(spread(C, C0 + n), h, total_y)
                    if gated:
                        store(ys, q * WIDTH, total_y)
                for q in range(length - 1, -1, -1):
                    t = L - 1 - p * Q - q if reverse else p * Q + q
                    row = ((b * L + t) * blocks + k) * WIDTH
                    step = load(dt, b * dtb + t * dtt + d0)
                    xs = load(x, b * xb + t * xt + d0)
                    grad = load(gy, row)
                    if gated:
                        zs = load(z, b * zb + t * zt + d0)
                        sigmoid = one / (one + exp(zero - zs))
                        out = load(ys, q * WIDTH)
                        if skip:
                            out = fma(load(D, d0), xs, out)
                        slope = sigmoid * fma(zs, one - sigmoid, one)
                        store(gz, row, grad * out * slope)
                        grad = grad * zs * sigmoid
                    grad_x = zero
                    if skip:
                        grad_x = grad * load(D, d0)
                        store(
                            gD,
                            (b * blocks + k) * WIDTH,
                            fma(grad, xs, load(gD, (b * blocks + k) * WIDTH)),
                        )
                    u = step * xs
                    grad_u = zero
                    grad_step = zero
                    B0, C0 = b * Bb + t * Bt, b * Cb + t * Ct
                    for n in range(N):
                        j = n * WIDTH
                        i = q * block_size + j
                        G = fma(spread(C, C0 + n), grad, load(carry, h0 + j))
                        store(sum_C, i, fma(grad, load(H, i + block_size), load(sum_C, i)))
                        store(sum_B, i, fma(u, G, load(sum_B, i)))
                        grad_u = fma(spread(B, B0 + n), G, grad_u)
                        back = G * load(decays, i)
                        store(carry, h0 + j, back)
                        power = back * load(H, i)  # dLoss/d(dt A)
                        grad_step = fma(power, load(A, a0 + j), grad_step)
                        store(gA, h0 + j, fma(power, step, load(gA, h0 + j)))
                    store(gx, row, fma(grad_u, step, grad_x))
                    store(gdt, row, fma(grad_u, xs, grad_step))
            for q in range(length):
                t = L - 1 - p * Q - q if reverse else p * Q + q
                row = ((g * batch + b) * L + t) * N
                for n in range(N):
                    i = q * block_size + n * WIDTH
                    gB[row + n] = total(load(sum_B, i))
                    gC[row + n] = total(load(sum_C, i))


# One name per number type: see `compiled`.
@compiled
def scan_forward_32(arrays, sizes):
    scan_forward(arrays, sizes)


@compiled
def scan_forward_64(arrays, sizes):
    scan_forward(arrays, sizes)


@compiled
def scan_backward_32(arrays, sizes):
    scan_backward(arrays, sizes)


@compiled
def scan_backward_64(arrays, sizes):
    scan_backward(arrays, sizes)
