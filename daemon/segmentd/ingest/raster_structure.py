"""Structural check of PNG and JPEG: whole from the first chunk or marker to the last one."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass

from segmentd.errors import Reason
from segmentd.ingest.verdict import MAX_DECODED_BYTES, BadStructureError, StillOpenError

PNG_HEADER_BYTES = 8
MAX_CHUNKS = 1_000_000
GREY, TRUECOLOR, PALETTE, GREY_ALPHA, TRUECOLOR_ALPHA = 0, 2, 3, 4, 6
PNG_DEPTHS = {GREY: (1, 2, 4, 8, 16), TRUECOLOR: (8, 16), PALETTE: (1, 2, 4, 8)} | {
    GREY_ALPHA: (8, 16),
    TRUECOLOR_ALPHA: (8, 16),
}
COLOR_CHANNELS = {GREY: 1, TRUECOLOR: 3, PALETTE: 3, GREY_ALPHA: 1, TRUECOLOR_ALPHA: 3}
BASELINE_AND_PROGRESSIVE = (0xC0, 0xC1, 0xC2)
OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
BLOCK_BYTES = 1 << 20

# In compressed data a 0xFF is followed by 0 (a stuffed byte), a restart marker or more 0xFF.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class PngSummary:
    """Size, bits a sample (8 or 16 once decoded) and colour channels without alpha."""

    width: int
    height: int
    bits: int
    channels: int


@dataclass(frozen=True, slots=True)
class JpegSummary:
    """Size and colour channels of 8 bits."""

    width: int
    height: int
    channels: int


def examine_png(fd: int, size: int) -> PngSummary:
    """Walk the chunks of a PNG to its end."""
    header = _exactly(fd, PNG_HEADER_BYTES, 25, size)
    length, kind, width, height, bits, color, *_ = struct.unpack(">I4sIIBBBBB4x", header)
    if length != 13 or kind != b"IHDR" or bits not in PNG_DEPTHS.get(color, ()):
        raise BadStructureError(Reason.IMAGE_CORRUPT, "has a damaged PNG header; copy it again")
    channels = COLOR_CHANNELS[color]
    _check_size(width, height, 4 * max(1, bits // 8))
    offset, data_seen = PNG_HEADER_BYTES + 25, False
    for _ in range(MAX_CHUNKS):
        length, kind = struct.unpack(">I4s", _exactly(fd, offset, 8, size))
        offset += 12 + length
        if offset > size:
            raise StillOpenError(f"a chunk ends at byte {offset}, the file at byte {size}")
        data_seen = data_seen or kind == b"IDAT"
        if kind == b"IEND" and data_seen:
            return PngSummary(width, height, max(8, bits), channels)
        if kind == bytes(4):
            raise StillOpenError("its end has not been written yet")
        if kind == b"IEND" or not kind.isalpha():
            break
    raise BadStructureError(Reason.IMAGE_CORRUPT, "has damaged PNG chunks; copy it again")


def examine_jpeg(fd: int, size: int) -> JpegSummary:
    """Walk the markers of a JPEG to its end."""
    offset = 2
    summary: JpegSummary | None = None
    for _ in range(MAX_CHUNKS):
        marker, offset = _next_marker(fd, offset, size)
        if marker == END_OF_IMAGE:
            if summary is None:
                raise BadStructureError(Reason.IMAGE_CORRUPT, "has no image in it; save it again")
            return summary
        if marker in OTHER_FRAMES:
            text = "is a JPEG of a kind that is not supported; save it as baseline JPEG, PNG or TIFF"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        length = struct.unpack(">H", _exactly(fd, offset, 2, size))[0]
        if length < 2:
            break
        if marker in BASELINE_AND_PROGRESSIVE:
            summary = _frame(_exactly(fd, offset + 2, 6, size))
        offset += length
        if offset > size:
            raise StillOpenError(f"a part ends at byte {offset}, the file at byte {size}")
        if marker == START_OF_SCAN:
            offset = _end_of_scan(fd, offset, size)
    raise BadStructureError(Reason.IMAGE_CORRUPT, "has damaged JPEG parts; copy it again")


def _frame(data: bytes) -> JpegSummary:
    precision, height, width, components = struct.unpack(">BHHB", data)
    if precision != 8 or components not in (1, 3) or not height:
        text = f"is a JPEG with {components} channels of {precision} bits; save it as grey or RGB with 8 bits"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    _check_size(width, height, components)
    return JpegSummary(width, height, components)


def _next_marker(fd: int, offset: int, size: int) -> tuple[int, int]:
    """Read a marker and the offset after it; any number of fill bytes may stand before it."""
    data = _exactly(fd, offset, 2, size)
    while data[0] == 0xFF and data[1] == 0xFF:
        offset += 1
        data = _exactly(fd, offset, 2, size)
    if data == bytes(2):
        raise StillOpenError("its end has not been written yet")
    if data[0] != 0xFF:
        raise BadStructureError(Reason.IMAGE_CORRUPT, f"has no JPEG marker at byte {offset}; copy it again")
    return data[1], offset + 2


def _end_of_scan(fd: int, offset: int, size: int) -> int:
    """Return the offset of the first marker after the compressed data that starts at `offset`."""
    while offset < size - 1:
        block = os.pread(fd, BLOCK_BYTES, offset)
        match = _MARKER.search(block)
        if match:
            return offset + match.start()
        if len(block) < 2:
            break
        offset += len(block) - 1  # the last byte may be the first half of a marker
    raise StillOpenError("its compressed pixels do not end inside the file")


def _exactly(fd: int, offset: int, length: int, size: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) < length:
        raise StillOpenError(f"it ends at byte {size}, in the middle of a part")
    return data


def _check_size(width: int, height: int, pixel_bytes: int) -> None:
    if not width or not height:
        raise BadStructureError(Reason.IMAGE_CORRUPT, "has no width or height; save it again")
    if width * height * pixel_bytes > MAX_DECODED_BYTES:
        text = f"has {height} x {width} pixels, more than {MAX_DECODED_BYTES} bytes: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
