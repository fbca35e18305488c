"""The structural check of PNG and JPEG."""

from __future__ import annotations

import io
import os
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from segmentd.errors import Reason
from segmentd.ingest import structure
from segmentd.ingest.raster_structure import JpegSummary, PngSummary
from segmentd.ingest.verdict import CLOSED, Structure, Verdict

PIXELS = np.random.default_rng(5).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def check(data: bytes) -> Structure:
    with io.FileIO(os.memfd_create("test"), "w+") as file:
        file.write(data)
        return structure.check(file.fileno(), "x")


def summary(data: bytes) -> structure.Summary:
    with io.FileIO(os.memfd_create("test"), "w+") as file:
        file.write(data)
        return structure.examine(file.fileno(), "x")


def saved(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header: tuple[int, int, int, int], *chunks: bytes) -> bytes:
    return (
        structure.PNG_MAGIC + png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)) + b"".join(chunks)
    )


IDAT, IEND = png_chunk(b"IDAT", zlib.compress(bytes(100))), png_chunk(b"IEND", b"")
FILES = {
    "png": bytes(imagecodecs.png_encode(PIXELS)),
    "jpeg": saved(PIXELS, "JPEG"),
    "progressive jpeg": saved(PIXELS, "JPEG", progressive=True, quality=90),
    "jpeg with restarts": saved(PIXELS, "JPEG", restart_marker_blocks=2),
    "grey jpeg": saved(PIXELS[..., 0], "JPEG"),
}


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_closed_and_cut_ones_open(name: str) -> None:
    data = FILES[name]
    assert check(data) == CLOSED
    for size in range(1, len(data), 1 if len(data) < 3000 else 7):
        assert check(data[:size]).verdict is Verdict.OPEN, size
    assert check(data[:-1]).verdict is Verdict.OPEN


@pytest.mark.parametrize("name", FILES)
def test_files_that_had_their_full_size_from_the_start_are_open(name: str) -> None:
    data = FILES[name]
    for size in range(200, len(data) - 20, 211):
        assert check(data[:size].ljust(len(data), b"\0")).verdict is not Verdict.CLOSED, size
    assert check(data[:-12].ljust(len(data), b"\0")).verdict is Verdict.OPEN


def test_what_follows_the_end_does_not_matter() -> None:
    for data in FILES.values():
        assert check(data + b"appended by a camera") == CLOSED


def test_sizes_and_channels_are_found() -> None:
    assert summary(FILES["png"]) == PngSummary(width=80, height=60, bits=8, channels=3)
    assert summary(FILES["progressive jpeg"]) == JpegSummary(width=80, height=60, channels=3)
    assert summary(FILES["grey jpeg"]) == JpegSummary(width=80, height=60, channels=1)
    assert summary(png((5, 4, 1, 3), IDAT, IEND)) == PngSummary(width=5, height=4, bits=8, channels=3)
    assert summary(png((5, 4, 16, 4), IDAT, IEND)) == PngSummary(width=5, height=4, bits=16, channels=1)


def jpeg_with(marker: int, frame: tuple[int, int, int, int]) -> bytes:
    data = FILES["jpeg"]
    at = data.index(b"\xff\xc0")
    return (
        data[:at]
        + bytes([0xFF, marker])
        + data[at + 2 : at + 4]
        + struct.pack(">BHHB", *frame)
        + data[at + 10 :]
    )


BAD = {
    "width 0": (png((0, 4, 8, 0), IDAT, IEND), Reason.IMAGE_CORRUPT),
    "3 bits": (png((5, 4, 3, 0), IDAT, IEND), Reason.IMAGE_CORRUPT),
    "palette of 16 bits": (png((5, 4, 16, 3), IDAT, IEND), Reason.IMAGE_CORRUPT),
    "colours of no known kind": (png((5, 4, 8, 5), IDAT, IEND), Reason.IMAGE_CORRUPT),
    "4 gigapixel": (png((65536, 65536, 8, 2), IDAT, IEND), Reason.IMAGE_TOO_LARGE),
    "no pixels": (png((5, 4, 8, 0), IEND), Reason.IMAGE_CORRUPT),
    "chunk of no known kind": (png((5, 4, 8, 0), png_chunk(b"\1\2\3\4", b""), IEND), Reason.IMAGE_CORRUPT),
    "lossless JPEG": (jpeg_with(0xC3, (8, 60, 80, 3)), Reason.IMAGE_UNSUPPORTED),
    "arithmetic JPEG": (jpeg_with(0xC9, (8, 60, 80, 3)), Reason.IMAGE_UNSUPPORTED),
    "JPEG of 12 bits": (jpeg_with(0xC1, (12, 60, 80, 3)), Reason.IMAGE_UNSUPPORTED),
    "CMYK JPEG": (jpeg_with(0xC0, (8, 60, 80, 4)), Reason.IMAGE_UNSUPPORTED),
    "JPEG without a height": (jpeg_with(0xC0, (8, 0, 80, 3)), Reason.IMAGE_UNSUPPORTED),
    "JPEG without a width": (jpeg_with(0xC0, (8, 60, 0, 3)), Reason.IMAGE_CORRUPT),
    "JPEG of 4 gigapixel": (jpeg_with(0xC0, (8, 65535, 65535, 3)), Reason.IMAGE_TOO_LARGE),
    "JPEG without an image": (b"\xff\xd8\xff\xe0\0\2\xff\xd9", Reason.IMAGE_CORRUPT),
    "JPEG without markers": (b"\xff\xd8\xff\xe0\0\4\1\2\3\4\5\6\7\x08", Reason.IMAGE_CORRUPT),
    "JPEG part of size 1": (b"\xff\xd8\xff\xe0\0\1" + bytes(20), Reason.IMAGE_CORRUPT),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_a_reason(name: str) -> None:
    data, reason = BAD[name]
    found = check(data)
    assert found.verdict is Verdict.BAD
    assert found.fault is not None
    assert found.fault.reason == reason
