"""Vector code for masks of 64 pixels: comparing, counting votes, spreading bits over pixels.

Plain LLVM vector operations, so any processor with SIMD gets good code from them. A mask is two halves of
32 bits. Which pixel a bit stands for is the comparison's affair; everything else treats bits alike.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from llvmlite import ir
from numba import types
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
    """Add the masks of eight trees to a count of votes.

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
        for plane in range(BIT_PLANES):
            carries = []
            while len(bits) > 2:
                total, carry = _add_bits(builder, *bits[:3])
                bits = [*bits[3:], total]
                carries.append(carry)
            bits += [none] * (2 - len(bits))
            total, carry = _add_bits(builder, *bits, load(builder, _MASKS, row(planes, plane), 32))
            store(builder, total, row(planes, plane), 32)
            bits = [*carries, carry]
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def append_bit(typing_context, counts, mask):
    """Double 64 byte counts at `counts` and add the bits of the uint64 at `mask`."""

    def emit(context, builder, signature, arguments):
        counts, mask = arguments
        doubled = load(builder, _BYTES, counts, 64)
        doubled = builder.add(doubled, doubled)
        # Byte i // 8 of the mask to lane i, then the lane's own bit of it.
        mask_bytes = load(builder, ir.VectorType(I8, 8), mask, 8)
        lanes = constant(I32, [lane // 8 for lane in range(PACKET_PIXELS)])
        own_bit = constant(I8, [1 << lane % 8 for lane in range(PACKET_PIXELS)])
        chosen = builder.and_(builder.shuffle_vector(mask_bytes, mask_bytes, lanes), own_bit)
        is_set = builder.sext(builder.icmp_unsigned("==", chosen, own_bit), _BYTES)
        store(builder, builder.sub(doubled, is_set), counts, 64)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


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
def put_where(typing_context, number, low, high, numbers):
    """Store `number` in those of 64 int32 at `numbers` whose bit is set in the halves `low`, `high`."""

    def emit(context, builder, signature, arguments):
        number, low, high, numbers = arguments
        own_bit = constant(I32, [1 << lane for lane in range(8)])
        number = spread(builder, builder.trunc(number, I32), 8)
        for row in range(PACKET_PIXELS // 8):
            half = builder.trunc((low, high)[row // 4], I32)
            byte = spread(builder, builder.lshr(half, ir.Constant(I32, 8 * (row % 4))), 8)
            is_set = builder.icmp_unsigned("==", builder.and_(byte, own_bit), own_bit)
            target = builder.add(numbers, _int(32 * row))
            old = load(builder, own_bit.type, target, 32)
            store(builder, builder.select(is_set, number, old), target, 32)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


@intrinsic
def add_values(typing_context, values, sums):
    """Add four float64 to those at `sums`."""

    def emit(context, builder, signature, arguments):
        values, sums = arguments
        four = ir.VectorType(DOUBLE, VALUES_AT_ONCE)
        total = builder.fadd(load(builder, four, sums, 32), load(builder, four, values, 8))
        store(builder, total, sums, 32)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit
