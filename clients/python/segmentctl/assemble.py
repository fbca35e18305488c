"""Blocks from the wire to whole planes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import zstandard

from segmentctl.errors import StreamError
from segmentd.v1 import pixels_pb2

UInt8Array = npt.NDArray[np.uint8]
Planes = tuple[UInt8Array, UInt8Array | None]


class PlaneAssembler:
    """Puts the blocks of a plane, or of a rectangle of it, in their places.

    Blocks may come in any order and size. Every pixel must come exactly once. Either all blocks bring
    confidence, or none does: a watch need not write it.

    Parameters
    ----------
    height, width : int
        Size of the rectangle in pixels.
    y, x : int
        Its first row and column in the plane.
    """

    def __init__(self, height: int, width: int, *, y: int = 0, x: int = 0) -> None:
        if height < 1 or width < 1:
            raise StreamError(f"pixels were announced for a plane of {height} x {width} pixels")
        self._y, self._x = y, x
        self._labels = np.zeros((height, width), np.uint8)
        self._confidence: UInt8Array | None = None
        self._covered = np.zeros((height, width), np.bool_)
        self._missing = height * width

    @property
    def done(self) -> int:
        """Pixels that have come so far."""
        return self._labels.size - self._missing

    def add(self, block: pixels_pb2.Block) -> None:
        """Put one block in its place.

        Raises
        ------
        StreamError
            If the block reaches outside, brings a pixel again, or its bytes do not fit its region.
        """
        place = self._place(block.region)
        if self._covered[place].any():
            raise StreamError(f"a block brings pixels again ({_text(block.region)})")
        shape = (block.region.height, block.region.width)
        self._take_confidence(block, place, shape)
        self._labels[place] = _unpack(block.labels, block, "labels").reshape(shape)
        self._covered[place] = True
        self._missing -= shape[0] * shape[1]

    def finish(self) -> Planes:
        """Give labels and confidence, each uint8 (height, width); None for confidence if there is none.

        Raises
        ------
        StreamError
            If pixels are missing.
        """
        if self._missing:
            raise StreamError(f"the blocks left out {self._missing} of {self._labels.size} pixels")
        return self._labels, self._confidence

    def _take_confidence(
        self, block: pixels_pb2.Block, place: tuple[slice, slice], shape: tuple[int, int]
    ) -> None:
        confidence = block.confidence  # once: each look makes a copy
        if self.done == 0 and confidence:
            self._confidence = np.zeros_like(self._labels)
        if (self._confidence is None) != (not confidence):
            raise StreamError("some blocks bring confidence and some do not")
        if self._confidence is not None:
            self._confidence[place] = _unpack(confidence, block, "confidence").reshape(shape)

    def _place(self, region: pixels_pb2.Region) -> tuple[slice, slice]:
        top, left = region.y - self._y, region.x - self._x
        height, width = self._labels.shape
        inside = min(top, left) >= 0 and top + region.height <= height and left + region.width <= width
        if min(region.height, region.width) < 1 or not inside:
            raise StreamError(f"a block lies outside of what was asked for ({_text(region)})")
        return slice(top, top + region.height), slice(left, left + region.width)


def assemble(
    blocks: Iterable[pixels_pb2.Block], height: int, width: int, *, y: int = 0, x: int = 0
) -> Planes:
    """Put all blocks of a rectangle together; see `PlaneAssembler.finish`.

    Raises
    ------
    StreamError
        If a pixel comes twice or not at all.
    """
    assembler = PlaneAssembler(height, width, y=y, x=x)
    for block in blocks:
        assembler.add(block)
    return assembler.finish()


def _unpack(data: bytes, block: pixels_pb2.Block, what: str) -> UInt8Array:
    size = block.region.height * block.region.width
    if block.encoding == pixels_pb2.ENCODING_ZSTD:
        data = _unzstd(data, size, what)
    elif block.encoding != pixels_pb2.ENCODING_RAW:
        raise StreamError(f"a block is packed in a way that this client does not know ({block.encoding})")
    if len(data) != size:
        raise StreamError(f"a block of {size} pixels has {len(data)} bytes of {what}")
    return np.frombuffer(data, np.uint8)


def _unzstd(data: bytes, size: int, what: str) -> bytes:
    try:
        # checked first: a frame may claim any size, and the memory for it would be taken
        claimed = zstandard.get_frame_parameters(data).content_size
        if claimed != size:
            raise StreamError(f"a block of {size} pixels claims {claimed} bytes of {what}")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise StreamError(f"the {what} of a block cannot be unpacked: {error}") from error


def _text(region: pixels_pb2.Region) -> str:
    return f"rows {region.y}+{region.height}, columns {region.x}+{region.width}"
