"""The two steps of the walk for x86 processors: AVX-512, which can compress a vector, and AVX2, which cannot.

Compressing moves the lanes that are chosen to the front. So the children of 8 or 16 items go to the end of
the next level and of the list of leaves with whole-vector stores, of which the front counts: the ends move
by the number of lanes chosen, and the next store goes over the rest.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from segmentd.compute.packets.memory import (
    FLOAT,
    I8,
    I16,
    I32,
    I64,
    Builder,
    Value,
    call,
    constant,
    load,
    spread,
    store,
)
from segmentd.compute.packets.walk import BATCH_BYTES, PACKET_BITS

AVX2_LANES, AVX512_LANES = 8, 16
AVX2_ROW_STEP, AVX2_RUN_STEP = 4, 16
"""Order of the bits of `compare_avx2`, see `output.bit_of_pixel`."""

_GREATER_OR_EQUAL = ir.Constant(I8, 29)
"""Ordered. Threshold >= feature and not feature <= threshold: only the second operand can be in memory."""

Compressor = Callable[[Builder, Value, Value, list[Value]], list[Value]]
"""Compress vectors alike: (builder, lanes to keep, address of the table, vectors)."""


def compress_table() -> npt.NDArray[np.uint8]:
    """For each of 256 sets of eight lanes: the lanes of the set, in order, then the others."""
    is_member = np.arange(2**AVX2_LANES)[:, None] >> np.arange(AVX2_LANES) & 1
    return np.argsort(1 - is_member, axis=1, kind="stable").astype(np.uint8)


@intrinsic
def compare_avx2(typing_context, features, threshold, low, high):
    """Compare 64 float32 as `masks.compare_halves` does, with another order of bits.

    Packing two vectors works on their 128-bit halves, so it takes four pixels of one row, then four of the
    next. Putting them in order would cost six instructions more; the order is undone once, when labels are
    written: a half of the mask holds the left four pixels of four rows, then the right four.
    """

    def emit(context, builder, signature, arguments):
        features, threshold, *targets = arguments
        limit = spread(builder, load(builder, FLOAT, threshold, 4), AVX2_LANES)
        lanes, words, flags = ir.VectorType(I32, 8), ir.VectorType(I16, 16), ir.VectorType(I8, 32)
        rows = []
        for row in range(8):
            values = load(builder, limit.type, builder.add(features, ir.Constant(I64, 32 * row)), 32)
            below = call(builder, "llvm.x86.avx.cmp.ps.256", limit.type, limit, values, _GREATER_OR_EQUAL)
            rows.append(builder.bitcast(below, lanes))
        for four, target in zip((rows[:4], rows[4:]), targets, strict=True):
            pairs = [call(builder, "llvm.x86.avx2.packssdw", words, *four[i : i + 2]) for i in (0, 2)]
            packed = call(builder, "llvm.x86.avx2.packsswb", flags, *pairs)
            store(builder, call(builder, "llvm.x86.avx2.pmovmskb", I32, packed), target, 4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


def _compress_avx2(builder: Builder, keep: Value, table: Value, vectors: list[Value]) -> list[Value]:
    row = builder.mul(builder.zext(builder.bitcast(keep, I8), I64), ir.Constant(I64, AVX2_LANES))
    lanes = load(builder, ir.VectorType(I8, AVX2_LANES), builder.add(table, row), 8)
    lanes = builder.zext(lanes, vectors[0].type)
    return [call(builder, "llvm.x86.avx2.permd", vector.type, vector, lanes) for vector in vectors]


def _compress_avx512(builder: Builder, keep: Value, table: Value, vectors: list[Value]) -> list[Value]:
    # In registers: the instruction that compresses into memory is slow on some processors.
    name = f"llvm.experimental.vector.compress.v{AVX512_LANES}i32"
    nothing = ir.Constant(vectors[0].type, ir.Undefined)
    return [call(builder, name, vector.type, vector, keep, nothing) for vector in vectors]


def _make_split(lanes: int, compress: Compressor):
    vector = ir.VectorType(I32, lanes)
    none = ir.Constant(vector, [0] * lanes)

    def emit(context, builder, signature, arguments):
        item, list_bytes, compared, children, end, leaf, table = arguments

        def parts(start: Value, distance: Value, count: int) -> list[Value]:
            places = [start]
            for _ in range(1, count):
                places.append(builder.add(places[-1], distance))
            return places

        items, *masks = (load(builder, vector, place, 4) for place in parts(item, list_bytes, 3))
        packets = builder.and_(items, constant(I32, [PACKET_BITS] * lanes))
        batch_bytes = ir.Constant(I64, BATCH_BYTES)
        below = [load(builder, vector, place, 4) for place in parts(compared, batch_bytes, 2)]
        pairs = load(builder, ir.VectorType(I32, 2 * lanes), children, 4)
        for side in range(2):
            taken = below if side == 0 else [builder.not_(half) for half in below]
            low, high = (builder.and_(mask, half) for mask, half in zip(masks, taken, strict=True))
            child = builder.shuffle_vector(pairs, pairs, constant(I32, range(side, 2 * lanes, 2)))
            alive = builder.icmp_signed("!=", builder.or_(low, high), none)
            is_leaf = builder.icmp_signed("<", child, none)
            child = builder.or_(child, packets)
            ends = []
            for place, keep in (
                (end, builder.and_(alive, builder.not_(is_leaf))),
                (leaf, builder.and_(alive, is_leaf)),
            ):
                compressed = compress(builder, keep, table, [child, low, high])
                for value, target in zip(compressed, parts(place, list_bytes, 3), strict=True):
                    store(builder, value, target, 4)
                chosen = builder.bitcast(keep, ir.IntType(lanes))
                count = builder.zext(builder.ctpop(chosen), I64)
                ends.append(builder.add(place, builder.mul(count, ir.Constant(I64, 4))))
            end, leaf = ends
        return context.make_tuple(builder, signature.return_type, [end, leaf])

    @intrinsic
    def split_vector(typing_context, item, list_bytes, compared, children, end, leaf, compress_table):
        """As `walk.split_one`, for as many items as there are lanes."""
        return types.UniTuple(types.int64, 2)(*[types.int64] * 7), emit

    return split_vector


split_avx2 = _make_split(AVX2_LANES, _compress_avx2)
split_avx512 = _make_split(AVX512_LANES, _compress_avx512)
