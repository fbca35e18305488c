"""Pixels on the wire: rectangles of at most 1 MiB, packed on request."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import zstandard

from segmentd import telemetry
from segmentd.records import Region
from segmentd.rpc.convert import region_message
from segmentd.v1 import pixels_pb2

# Labels and confidence take a byte each: 2 bytes a pixel, 1 MiB a block.
MAX_BLOCK_PIXELS = 1 << 19
MAX_BLOCK_WIDTH = 1024

Bytes = npt.NDArray[np.uint8]


def split(region: Region) -> Iterator[Region]:
    """Cut a region into rectangles that fit a block each, row by row."""
    width = min(region.width, MAX_BLOCK_WIDTH)
    height = max(1, MAX_BLOCK_PIXELS // width)
    for y in range(region.y, region.y + region.height, height):
        for x in range(region.x, region.x + region.width, width):
            yield Region(
                y, x, min(height, region.y + region.height - y), min(width, region.x + region.width - x)
            )


def block_message(
    region: Region, labels: Bytes, confidence: Bytes | None, encoding: pixels_pb2.Encoding
) -> pixels_pb2.Block:
    """One block; `labels` and `confidence` are uint8 (h, w) of the region."""
    zstd = encoding == pixels_pb2.ENCODING_ZSTD
    pack = zstandard.ZstdCompressor(level=1).compress if zstd else bytes
    packed = [
        b"" if plane is None else pack(np.ascontiguousarray(plane).tobytes())
        for plane in (labels, confidence)
    ]
    telemetry.count("api_sent_bytes", sum(map(len, packed)))
    return pixels_pb2.Block(
        region=region_message(region),
        labels=packed[0],
        confidence=packed[1],
        encoding=pixels_pb2.ENCODING_ZSTD if zstd else pixels_pb2.ENCODING_RAW,
    )


def tile_blocks(
    region: Region, labels: Bytes, confidence: Bytes, encoding: pixels_pb2.Encoding
) -> Iterator[pixels_pb2.Block]:
    """Blocks of one computed tile."""
    for part in split(region):
        rows = slice(part.y - region.y, part.y - region.y + part.height)
        columns = slice(part.x - region.x, part.x - region.x + part.width)
        yield block_message(part, labels[rows, columns], confidence[rows, columns], encoding)
