"""Vector code for masks of 64 pixels: comparing, counting votes, spreading bits over pixels.

Plain LLVM vector operations, so any processor with SIMD gets good code from them. A mask is two halves of
32 bits. Which pixel a bit stands for is the comparison's affair; everything else treats bits alike.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from segmentd.compute.packets.layout import PACKET_PIXELS, TREES_AT_ONCE, VALUES_AT_ONCE
from segmentd.compute.packets.memory import (
    DOUBLE,
    FLOAT,
    I8,
    I32,
    I64,
    Builder,
    Value,
    constant,
    load,
    spread,
    store,
)

GROUP = 4
"""Packets that are walked together; votes of all four are counted in one vector."""
BIT_PLANES = 8
"""Bits of a vote count."""

_HALF = PACKET_PIXELS // 2
_BYTES = ir.VectorType(I8, PACKET_PIXELS)
_MASKS = ir.VectorType(I64, GROUP)
_MASKS_BYTES = 8 * GROUP


def _int(number: int) -> Value:
    return ir.Constant(I64, number)


@intrinsic
def compare_halves(typing_context, features, threshold, low, high):
    """Compare 64 float32 at `features` with the one at `threshold`; store two halves of a mask.

    Bit i of `low` is set where feature i is <= the threshold, bit i of `high` for feature 32 + i. Not a
    number is not <= anything.
    """

    def emit(context, builder, signature, arguments):
        features, threshold, *targets = arguments
        limit = spread(builder, load(builder, FLOAT, threshold, 4), _HALF)
        for half, target in enumerate(targets):
            start = builder.add(features, _int(4 * _HALF * half))
            values = load(builder, limit.type, start, 64)
            below = builder.fcmp_ordered("<=", values, limit)
            store(builder, builder.bitcast(below, I32), target, 4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


def _add_bits(builder: Builder, a: Value, b: Value, c: Value) -> tuple[Value, Value]:
    """Sum and carry of three bits, in every bit of the vectors."""
    different = builder.xor(a, b)
    carry = builder.or_(builder.and_(a, b), builder.and_(different, c))
    return builder.xor(different, c), carry


@intrinsic
def count_eight(typing_context, masks, planes):
    """Add the masks of eight trees to a count of votes, and empty them for the next packets.

    A mask here is a row of `GROUP` uint64, one for each packet; so is each of the eight bit planes at
    `planes`, lowest first: bit i of plane b is bit b of pixel i's count. Adding bit by bit, for 256 pixels
    at once, takes a fifth of the instructions of counting in bytes.
    """

    def emit(context, builder, signature, arguments):
        masks, planes = arguments
        none = constant(I64, [0] * GROUP)

        def row(start: Value, number: int) -> Value:
            return builder.add(start, _int(number * _MASKS_BYTES))

        # The bits of one weight: three become a sum and a carry until two are left for the old count. It
        # comes last since the count of the eight trees before may not be done yet.
        bits = [load(builder, _MASKS, row(masks, tree), 32) for tree in range(TREES_AT_ONCE)]
        for tree in range(TREES_AT_ONCE):
            store(builder, none, row(masks, tree), 32)
        for plane in range(BIT_PLANES):
            carries = []
            while len(bits) > 2:
                a, b, c, *others = bits
                total, carry = _add_bits(builder, a, b, c)
                bits = [*others, total]
                carries.append(carry)
            a, b = bits if len(bits) == 2 else (*bits, none)
            total, carry = _add_bits(builder, a, b, load(builder, _MASKS, row(planes, plane), 32))
            store(builder, total, row(planes, plane), 32)
            bits = [*carries, carry]
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


def _where_set(builder: Builder, mask_bytes: Value) -> Value:
    """A mask of 8 bytes as 64 bytes of 0 or -1."""
    lanes = constant(I32, [lane // 8 for lane in range(PACKET_PIXELS)])
    own_bit = constant(I8, [1 << lane % 8 for lane in range(PACKET_PIXELS)])
    chosen = builder.and_(builder.shuffle_vector(mask_bytes, mask_bytes, lanes), own_bit)
    return builder.sext(builder.icmp_unsigned("==", chosen, own_bit), _BYTES)


@intrinsic
def append_bit(typing_context, counts, mask):
    """Double 64 byte counts at `counts` and add the bits of the uint64 at `mask`."""

    def emit(context, builder, signature, arguments):
        counts, mask = arguments
        doubled = load(builder, _BYTES, counts, 64)
        doubled = builder.add(doubled, doubled)
        is_set = _where_set(builder, load(builder, ir.VectorType(I8, 8), mask, 8))
        store(builder, builder.sub(doubled, is_set), counts, 64)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def mark(typing_context, number, mask, numbers):
    """Put `number` (0..63) in those of 64 bytes at `numbers` whose bit of `mask` is set; they must be 0."""

    def emit(context, builder, signature, arguments):
        number, mask, numbers = arguments
        is_set = _where_set(builder, builder.bitcast(mask, ir.VectorType(I8, 8)))
        marks = builder.and_(is_set, spread(builder, builder.trunc(number, I8), PACKET_PIXELS))
        store(builder, builder.or_(load(builder, _BYTES, numbers, 64), marks), numbers, 64)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), emit


@intrinsic
def elect(typing_context, counts, label, most, labels):
    """Where a byte count exceeds that at `most`, replace it there, and the byte at `labels` by `label`."""

    def emit(context, builder, signature, arguments):
        counts, label, most, labels = arguments
        candidate, best = load(builder, _BYTES, counts, 64), load(builder, _BYTES, most, 64)
        wins = builder.icmp_unsigned(">", candidate, best)
        label = spread(builder, builder.trunc(label, I8), PACKET_PIXELS)
        store(builder, builder.select(wins, candidate, best), most, 64)
        store(builder, builder.select(wins, label, load(builder, _BYTES, labels, 64)), labels, 64)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


@intrinsic
def average_eight(typing_context, marks, leaves, values, value_bytes, trees, means):
    """Mean over the trees of four class values each for eight pixels, added up in the order of the trees.

    For each tree there are 64 bytes at `marks`, of which the eight pixels have the first eight: which of 64
    uint32 at `leaves` is a pixel's leaf. Leaf n has its values at `values + n * value_bytes`, pixel n its
    means at `means + n * value_bytes`.
    """

    def emit(context, builder, signature, arguments):
        marks, leaves, values, value_bytes, trees, means = arguments
        four = ir.VectorType(DOUBLE, VALUES_AT_ONCE)
        sums = [cgutils.alloca_once(builder, four) for _ in range(8)]
        for place in sums:
            builder.store(ir.Constant(four, [0.0] * VALUES_AT_ONCE), place)
        with cgutils.for_range(builder, trees, intp=I64) as loop:
            own_marks = builder.add(marks, builder.mul(loop.index, _int(PACKET_PIXELS)))
            own_leaves = builder.add(leaves, builder.mul(loop.index, _int(4 * PACKET_PIXELS)))
            for pixel, place in enumerate(sums):
                number = builder.zext(load(builder, I8, builder.add(own_marks, _int(pixel)), 1), I64)
                entry = builder.add(own_leaves, builder.mul(number, _int(4)))
                row = builder.mul(builder.zext(load(builder, I32, entry, 4), I64), value_bytes)
                value = load(builder, four, builder.add(values, row), 8)
                builder.store(builder.fadd(builder.load(place), value), place)
        count = spread(builder, builder.sitofp(trees, DOUBLE), VALUES_AT_ONCE)
        for pixel, place in enumerate(sums):
            mean = builder.fdiv(builder.load(place), count)
            store(builder, mean, builder.add(means, builder.mul(_int(pixel), value_bytes)), 32)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), emit
