"""Filters for blocks of 8 x 8 pixels, as LLVM vector code that numba compiles in place.

Here a *row* is eight float32 next to each other in memory, and a strip of rows is what a filter runs
along: output row `j` is a weighted sum of the rows around input row `j`. Each filter makes eight output
rows at a time and keeps them in registers, which numba's own vectoriser does not; that, and reading each
row once for two weights, makes it several times as fast as OpenCV.

A pixel keeps to its lane and every lane goes through the same operations in the same order, so the bits of
a value do not depend on where its pixel lies in a tile. (OpenCV's do: it treats the last columns apart.)

Arguments are byte addresses and counts, all int64. Nothing is checked here: callers see to it that the
rows exist.
"""

# Neither llvmlite nor numba's code generation has types
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
ROW_BYTES = 4 * LANES
BLOCK_BYTES = LANES * ROW_BYTES

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_ROW = ir.VectorType(_FLOAT, LANES)
_COMMON_RADIUS = 4  # sigma 1: Gabor filters and derivatives; worth code of its own

Builder = Any  # llvmlite has no types
Value = Any


def _int(number: int) -> Value:
    return ir.Constant(_INT64, number)


def _address(builder: Builder, start: Value, row: int) -> Value:
    return builder.inttoptr(builder.add(start, _int(row * ROW_BYTES)), _ROW.as_pointer())


def _load(builder: Builder, start: Value, row: int) -> Value:
    return builder.load(_address(builder, start, row), align=4)


def _store(builder: Builder, value: Value, start: Value, row: int) -> None:
    builder.store(value, _address(builder, start, row), align=4)


def _pick(builder: Builder, first: Value, second: Value, lanes: Sequence[int]) -> Value:
    """Lanes of two rows: 0..7 from the first, 8..15 from the second."""
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INT32, LANES), list(lanes)))


def _splat(builder: Builder, number: Value) -> Value:
    """A row with a float32 in all lanes."""
    nothing = ir.Constant(_ROW, ir.Undefined)
    row = builder.insert_element(nothing, number, ir.Constant(_INT32, 0))
    return _pick(builder, row, nothing, [0] * LANES)


def _weight(builder: Builder, address: Value) -> Value:
    return _splat(builder, builder.load(builder.inttoptr(address, _FLOAT.as_pointer()), align=4))


def _call(builder: Builder, name: str, *arguments: Value) -> Value:
    kind = ir.FunctionType(_ROW, [_ROW] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _multiply_add(builder: Builder, x: Value, y: Value, z: Value) -> Value:
    """X y + z: rounded once where the processor can, twice where it cannot, but everywhere alike."""
    return _call(builder, f"llvm.fmuladd.v{LANES}f32", x, y, z)


def _transposed(builder: Builder, rows: list[Value]) -> list[Value]:
    low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    pairs = [_pick(builder, rows[i], rows[i + 1], lanes) for i in (0, 2, 4, 6) for lanes in (low, high)]
    low, high = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    fours = [_pick(builder, pairs[i], pairs[i + 2], lanes) for i in (0, 1, 4, 5) for lanes in (low, high)]
    halves = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
    return [_pick(builder, fours[i], fours[i + 4], lanes) for lanes in halves for i in range(4)]


class _Fold:
    """Code for eight rows of a folded filter: sum over t of weight[t] * (row[j + t] +- row[j - t]).

    From the outermost weight to the centre, so that small terms meet before they are lost in large ones.

    Parameters
    ----------
    centre, upper : int64 values
        Address of row 0 as seen by the rows j - t and by the rows j + t (one row lower for even lengths).
    weights, radius : int64 values
        Address of the float32 weights, and the largest t.
    odd : bool
        Subtract the rows j - t, and leave out the centre.
    """

    def __init__(self, builder: Builder, arguments: Sequence[Value], odd: bool) -> None:
        self.builder = builder
        self.centre, self.upper, self.weights, self.radius = arguments
        self.odd = odd
        self.merge: Callable[[Value, Value], Value] = builder.fsub if odd else builder.fadd
        zero = ir.Constant(_ROW, [0.0] * LANES)
        self.sums = [cgutils.alloca_once(builder, _ROW) for _ in range(LANES)]
        for place in self.sums:
            builder.store(zero, place)

    def rows(self) -> list[Value]:
        """Emit the whole sum."""
        builder = self.builder
        is_common = builder.icmp_signed("==", self.radius, _int(_COMMON_RADIUS))
        with builder.if_else(is_common) as (common, other):
            with common:
                for t in range(_COMMON_RADIUS, 0, -2):
                    self._two_weights(_int(t))
            with other:
                self._any_radius()
        rows = [builder.load(place) for place in self.sums]
        if self.odd:
            return rows
        weight = _weight(builder, self.weights)
        return [
            _multiply_add(builder, weight, _load(builder, self.centre, j), row) for j, row in enumerate(rows)
        ]

    def _any_radius(self) -> None:
        builder = self.builder
        lone = builder.and_(self.radius, _int(1))
        with builder.if_then(builder.icmp_signed("!=", lone, _int(0))):
            self._one_weight(self.radius)
        even = builder.sub(self.radius, lone)
        with cgutils.for_range(builder, builder.lshr(even, _int(1)), intp=_INT64) as loop:
            self._two_weights(builder.sub(even, builder.shl(loop.index, _int(1))))

    def _starts(self, t: Value) -> tuple[Value, Value, Value]:
        """Addresses of row t, of row -t, and of weight t."""
        offset = self.builder.mul(t, _int(ROW_BYTES))
        weight = self.builder.add(self.weights, self.builder.mul(t, _int(4)))
        return self.builder.add(self.upper, offset), self.builder.sub(self.centre, offset), weight

    def _one_weight(self, t: Value) -> None:
        builder = self.builder
        after, before, weight = self._starts(t)
        factor = _weight(builder, weight)
        for j, place in enumerate(self.sums):
            pair = self.merge(_load(builder, after, j), _load(builder, before, j))
            builder.store(_multiply_add(builder, factor, pair, builder.load(place)), place)

    def _two_weights(self, t: Value) -> None:
        """Weights t and t - 1 in one sweep over the rows, downwards, which reads each row once.

        The fences are for the compiler alone and cost nothing: without them it moves the loads up, runs
        out of registers and is slower by half.
        """
        builder = self.builder
        after, before, weight = self._starts(t)
        outer, inner = _weight(builder, weight), _weight(builder, builder.sub(weight, _int(4)))
        sums = [builder.load(place) for place in self.sums]
        low = {LANES: _load(builder, before, LANES)}
        for j in range(LANES - 1, -2, -1):
            builder.fence("acq_rel", "singlethread")
            high = _load(builder, after, j)
            low[j] = _load(builder, before, j)
            if j >= 0:  # row j, weight t
                sums[j] = _multiply_add(builder, outer, self.merge(high, low[j]), sums[j])
            if j + 1 < LANES:  # row j + 1, weight t - 1: row j + t is its row (j + 1) + (t - 1)
                sums[j + 1] = _multiply_add(builder, inner, self.merge(high, low[j + 2]), sums[j + 1])
        for row, place in zip(sums, self.sums, strict=True):
            builder.store(row, place)


def _filter(*, odd: bool, turned: bool) -> Any:
    @intrinsic
    def block(typing, centre, upper, weights, radius, out):
        """Write eight rows of a filter to `out`; `turned` writes them as eight columns."""

        def generate(context, builder, signature, arguments):
            rows = _Fold(builder, arguments[:4], odd).rows()
            for j, row in enumerate(_transposed(builder, rows) if turned else rows):
                _store(builder, row, arguments[4], j)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), generate

    return block


filter_odd = _filter(odd=True, turned=False)
filter_even_turned = _filter(odd=False, turned=True)
filter_odd_turned = _filter(odd=True, turned=True)


@intrinsic
def filter_even_plus(typing, centre, upper, weights, radius, out, level):
    """Write eight rows of an even filter plus `level` (float32) to `out`."""

    def generate(context, builder, signature, arguments):
        rows = _Fold(builder, arguments[:4], False).rows()
        level = _splat(builder, arguments[5])
        for j, row in enumerate(rows):
            _store(builder, builder.fadd(row, level), arguments[4], j)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, types.float32), generate


@intrinsic
def filter_odd_onto(typing, centre, upper, weights, radius, base, minus, plus):
    """Write the block at `base` minus an odd filter to `minus`, and plus the filter to `plus`."""

    def generate(context, builder, signature, arguments):
        rows = _Fold(builder, arguments[:4], True).rows()
        for j, row in enumerate(rows):
            value = _load(builder, arguments[4], j)
            _store(builder, builder.fsub(value, row), arguments[5], j)
            _store(builder, builder.fadd(value, row), arguments[6], j)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


@intrinsic
def sobel_magnitude(typing, left, middle, right, copy, out, level):
    """Write Sobel magnitudes of a block to `out`, and the block plus `level` (float32) to `copy`.

    `left`, `middle` and `right` are strips side by side, each from the row above the block.
    """

    def generate(context, builder, signature, arguments):
        two, level = ir.Constant(_ROW, [2.0] * LANES), _splat(builder, arguments[5])
        across, along = [], []  # difference and weighted sum along x
        for j in range(LANES + 2):
            left, middle, right = (_load(builder, start, j) for start in arguments[:3])
            before = _pick(builder, left, middle, range(7, 15))
            after = _pick(builder, middle, right, range(1, 9))
            across.append(builder.fsub(after, before))
            along.append(_multiply_add(builder, two, middle, builder.fadd(before, after)))
            if 1 <= j <= LANES:
                _store(builder, builder.fadd(middle, level), arguments[3], j - 1)
        for j in range(LANES):
            dx = _multiply_add(builder, two, across[j + 1], builder.fadd(across[j], across[j + 2]))
            dy = builder.fsub(along[j + 2], along[j])
            square = _multiply_add(builder, dx, dx, builder.fmul(dy, dy))
            _store(builder, _call(builder, f"llvm.sqrt.v{LANES}f32", square), arguments[4], j)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, types.float32), generate


@intrinsic
def turn(typing, source, pitch, out):
    """Write eight rows that lie `pitch` bytes apart to `out` as columns."""

    def generate(context, builder, signature, arguments):
        starts = (builder.add(arguments[0], builder.mul(arguments[1], _int(j))) for j in range(LANES))
        rows = [_load(builder, start, 0) for start in starts]
        for j, row in enumerate(_transposed(builder, rows)):
            _store(builder, row, arguments[2], j)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate
