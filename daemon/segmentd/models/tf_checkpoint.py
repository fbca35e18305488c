"""Reads the variables of a TensorFlow checkpoint (`variables.index` and its data files) without TensorFlow.

The index is a table of sorted keys as LevelDB writes them, whose values are `BundleEntryProto`: type, shape
and place of a tensor in one of the data files.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from segmentd.models.protobuf import Message, Reader, varint
from segmentd.models.tf_schema import ELEMENTS, SCHEMA

MAX_TENSORS = 50_000
_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER_BYTES = 48
_BLOCK_TRAILER_BYTES = 5  # how the block is packed, and its checksum
_PREFIX = "variables/variables"


class Checkpoint:
    """The variables that lie beside a graph.

    Parameters
    ----------
    members : mapping
        Files of the SavedModel's folder, by their paths in it.

    Raises
    ------
    ValueError
        Saying what is wrong.
    """

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = members
        index = members.get(f"{_PREFIX}.index", b"")
        self._entries = dict(_table(memoryview(index))) if index else {}
        header = Reader(SCHEMA).read(self._entries.get(b"", memoryview(b"")), "BundleHeaderProto")
        self._shards = header.get("num_shards", 0)
        if header.get("endianness", 0):
            raise ValueError("its variables were written in another byte order")

    def read(self, key: str) -> tuple[int, npt.NDArray[np.generic]]:
        """Type (as TensorFlow numbers them) and value of a variable, a view of its file."""
        found = self._entries.get(key.encode())
        if found is None or not key:
            raise ValueError(f"its checkpoint has no variable {key!r}")
        entry = Reader(SCHEMA).read(found, "BundleEntryProto")
        dtype, shape = entry.get("dtype", 0), shape_of(entry.get("shape", {}), key)
        if dtype not in ELEMENTS:
            raise ValueError(f"its variable {key!r} holds elements of type {dtype}, not numbers")
        data = self._members.get(f"{_PREFIX}.data-{entry.get('shard_id', 0):05d}-of-{self._shards:05d}", b"")
        start, size = entry.get("offset", 0), entry.get("size", 0)
        kind = np.dtype(ELEMENTS[dtype][0]).newbyteorder("<")
        if not 0 <= start <= start + size <= len(data) or size != math.prod(shape) * kind.itemsize:
            raise ValueError(f"its variable {key!r} of shape {list(shape)} does not lie where it says")
        return dtype, np.frombuffer(data, kind, math.prod(shape), start).reshape(shape)


def shape_of(message: Message, what: str) -> tuple[int, ...]:
    """A shape without free axes."""
    sizes = tuple(dim.get("size", 0) for dim in message.get("dim", ()))
    if message.get("unknown_rank") or len(sizes) > 8 or any(not 0 <= size < 1 << 40 for size in sizes):
        raise ValueError(f"{what!r} has the impossible shape {list(sizes[:8])}")
    return sizes


def _table(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values."""
    footer = data[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or footer[-8:] != _MAGIC:
        raise ValueError("its variables.index is no index of a checkpoint, or was cut off")
    _, at = _handle(footer, 0)
    where, _ = _handle(footer, at)
    count = 0
    for _, value in _block(data, *where):
        place, _ = _handle(value, 0)
        for key, entry in _block(data, *place):
            count += 1
            if count > MAX_TENSORS:
                raise ValueError(f"its checkpoint has more than {MAX_TENSORS:,} variables")
            yield key, entry


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where the next number begins."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(data: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    if offset + size + _BLOCK_TRAILER_BYTES > len(data) or size < 4:
        raise ValueError("its variables.index names a place beyond its end")
    if data[offset + size]:
        raise ValueError("its variables.index is packed, which no checkpoint of TensorFlow is")
    block = data[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = size - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = varint(block, at)
        rest, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + rest + length > end or rest + shared > 1 << 16:
            raise ValueError("its variables.index is damaged")
        key = key[:shared] + bytes(block[at : at + rest])
        yield key, block[at + rest : at + rest + length]
        at += rest + length
