"""Pixels on the wire: rectangles of at most 1 MiB, packed on request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

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


class Piece(NamedTuple):
    """What goes into one block: labels and, if there is any, confidence of a region, both uint8 (h, w)."""

    region: Region
    labels: Bytes
    confidence: Bytes | None


def fill(block: pixels_pb2.Block, piece: Piece, encoding: pixels_pb2.Encoding) -> None:
    """Write a piece into a block, best one that is in its answer already: to put it there later is a copy."""
    zstd = encoding == pixels_pb2.ENCODING_ZSTD
    pack = zstandard.ZstdCompressor(level=1).compress if zstd else bytes
    block.region.CopyFrom(region_message(piece.region))
    labels = pack(piece.labels.tobytes())
    confidence = b"" if piece.confidence is None else pack(piece.confidence.tobytes())
    block.labels, block.confidence = labels, confidence
    telemetry.count("api_sent_bytes", len(labels) + len(confidence))
    block.encoding = pixels_pb2.ENCODING_ZSTD if zstd else pixels_pb2.ENCODING_RAW


def block_message(
    region: Region, labels: Bytes, confidence: Bytes | None, encoding: pixels_pb2.Encoding
) -> pixels_pb2.Block:
    """One block by itself."""
    block = pixels_pb2.Block()
    fill(block, Piece(region, labels, confidence), encoding)
    return block


def tile_pieces(region: Region, labels: Bytes, confidence: Bytes) -> Iterator[Piece]:
    """Pieces of one computed tile."""
    for part in split(region):
        rows = slice(part.y - region.y, part.y - region.y + part.height)
        columns = slice(part.x - region.x, part.x - region.x + part.width)
        yield Piece(part, labels[rows, columns], confidence[rows, columns])
