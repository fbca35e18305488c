"""Loads and stores at byte addresses, for kernels whose bounds were checked before they were called.

An address is an int64. numba's own indexing would add a test for negative indices to every access, and its
vectoriser does not see through what the kernels do; so these emit one LLVM instruction each.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

Builder = Any  # llvmlite has no types
Value = Any

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()


def load(builder: Builder, kind: Value, address: Value, align: int) -> Value:
    """Emit a load of a value of LLVM type `kind`."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: Builder, value: Value, address: Value, align: int) -> None:
    """Emit a store."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def call(builder: Builder, name: str, result: Value, *arguments: Value) -> Value:
    """Emit a call of an LLVM intrinsic."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def constant(kind: Value, numbers: Sequence[int]) -> Value:
    """A vector of integers."""
    return ir.Constant(ir.VectorType(kind, len(numbers)), list(numbers))


def spread(builder: Builder, value: Value, lanes: int) -> Value:
    """The value in every lane."""
    vector = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    vector = builder.insert_element(vector, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(vector, vector, constant(I32, [0] * lanes))


def _loader(kind, align, numba_type=types.int64):
    @intrinsic
    def load_number(typing_context, address):
        def emit(context, builder, signature, arguments):
            number = load(builder, kind, arguments[0], align)
            return builder.zext(number, I64) if kind in (I8, I32) else number

        return numba_type(types.int64), emit

    return load_number


def _storer(kind, align, numba_type=types.int64):
    @intrinsic
    def store_number(typing_context, address, number):
        def emit(context, builder, signature, arguments):
            address, number = arguments
            store(builder, builder.trunc(number, kind) if kind in (I8, I32) else number, address, align)
            return context.get_dummy_value()

        return types.void(types.int64, numba_type), emit

    return store_number


# Numbers of 8 and 32 bits are unsigned; of what is stored the low bits count. 64 bits may lie at any
# multiple of 4, four bytes anywhere.
load_u8, store_u8 = _loader(I8, 1), _storer(I8, 1)
load_u32, store_u32 = _loader(I32, 4), _storer(I32, 4)
store_four_bytes = _storer(I32, 1)
load_i64, store_i64 = _loader(I64, 4), _storer(I64, 4)
load_f64, store_f64 = _loader(DOUBLE, 8, types.float64), _storer(DOUBLE, 8, types.float64)


@intrinsic
def fill(typing_context, address, byte, count):
    """Set `count` bytes."""

    def emit(context, builder, signature, arguments):
        address, byte, count = arguments
        pointer = builder.inttoptr(address, I8.as_pointer())
        volatile = ir.Constant(I1, 0)
        call(builder, "llvm.memset.p0.i64", ir.VoidType(), pointer, builder.trunc(byte, I8), count, volatile)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def prefetch(typing_context, address):
    """Ask for a cache line that will be read soon."""

    def emit(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], I8.as_pointer())
        read, all_levels, data = (ir.Constant(I32, number) for number in (0, 3, 1))
        call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, read, all_levels, data)
        return context.get_dummy_value()

    return types.void(types.int64), emit
