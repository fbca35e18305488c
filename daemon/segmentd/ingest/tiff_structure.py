"""Structural check of TIFF and BigTIFF: everything that the file refers to must lie inside it.

Runs before any decoder: a decoder left alone with a truncated file may return empty arrays or zeros.
Raises `StillOpenError` for a file that may still be growing, `BadStructureError` for one that is wrong.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from segmentd.errors import Reason
from segmentd.ingest.tiff_directory import Directory, Numbers, Source, directories, read_layout
from segmentd.ingest.tiff_promise import MAX_DESCRIPTION_BYTES, Promise, promise_of
from segmentd.ingest.verdict import MAX_PLANE_BYTES, BadStructureError, StillOpenError

NONE, JPEG = 1, 7
JPEG_2000 = frozenset({33003, 33004, 33005, 34712})
CODECS = frozenset({NONE, 5, JPEG, 8, 32773, 32946, 34926, 50000}) | JPEG_2000
CODEC_NAMES = "none, deflate, LZW, PackBits, JPEG, JPEG 2000 and Zstandard"
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
PIXEL_KINDS = frozenset({(UNSIGNED, bits) for bits in (1, 8, 12, 16, 32)}) | {
    (SIGNED, 8),
    (SIGNED, 16),
    (FLOAT, 16),
    (FLOAT, 32),
    (FLOAT, 64),
}
KIND_NAMES = {UNSIGNED: "unsigned integers", SIGNED: "signed integers", FLOAT: "floating-point numbers"}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, YCBCR = 0, 1, 2, 3, 4, 6
MAX_TILE_PIXELS = 64 << 20
MAX_TILE_EDGE = 4096
RATIO_FROM_BYTES = 256 << 20
MAX_RATIO = 1000


@dataclass(frozen=True, slots=True)
class PageShape:
    """How the pixels of one image are stored; images of one stack have equal ones."""

    width: int
    length: int
    samples: int
    bits: int
    sample_format: int
    planar: bool
    compression: int
    photometric: int

    @property
    def nbytes(self) -> int:
        """Size of the uncompressed pixels; rows start at whole bytes."""
        return self.length * math.ceil(self.width * self.samples * self.bits / 8)


@dataclass(frozen=True, slots=True)
class TiffSummary:
    """What the check learned: the first image, how many there are, and the first description."""

    big: bool
    first: PageShape
    page_count: int
    description: bytes


def examine(fd: int) -> TiffSummary:
    """Check a whole TIFF, read through its descriptor."""
    source = Source(fd)
    layout, offset = read_layout(source)
    first: PageShape | None = None
    page_count = first_segment = 0
    description = b""
    written = False
    for directory in directories(source, layout, offset):
        shape, start, end = check_directory(directory)
        # A file that was given its full size before its pixels were written is one big hole at first.
        written = written or _has_data(fd, start, end)
        page_count += directory.main
        if first is None:
            first, first_segment = shape, start
            description = directory.text(270, MAX_DESCRIPTION_BYTES)
    if first is None or not written:
        raise StillOpenError("its pixels have not been written yet")
    _check_promise(source, promise_of(description), first, page_count, first_segment)
    return TiffSummary(layout.big, first, page_count, description)


def check_directory(directory: Directory) -> tuple[PageShape, int, int]:
    """Check one image; returns how it is stored, and where its pixels start and end."""
    try:
        shape = _shape(directory)
        start, end = _check_segments(directory, shape)
    except BadStructureError:
        if directory.unfinished:
            raise StillOpenError(f"the directory of {directory.name} is not filled in yet") from None
        raise
    return shape, start, end


def first_description(fd: int) -> bytes:
    """Return the description of the first image, without looking at anything else."""
    source = Source(fd)
    for directory in directories(source, *read_layout(source)):
        return directory.text(270, MAX_DESCRIPTION_BYTES)
    return b""


def _shape(directory: Directory) -> PageShape:
    """Read and check what describes the pixels."""
    name = directory.name
    width, length = directory.number(256, 0), directory.number(257, 0)
    if not width or not length:
        raise BadStructureError(Reason.IMAGE_CORRUPT, f"has no width or height in {name}; save it again")
    samples, compression = directory.number(277, 1), directory.number(259, NONE)
    photometric, planar = directory.number(262, BLACK_IS_ZERO), directory.number(284, 1)
    if samples < 1 or planar not in (1, 2):
        raise BadStructureError(Reason.IMAGE_CORRUPT, f"has impossible samples in {name}; save it again")
    if compression not in CODECS or directory.number(317, 1) not in (1, 2, 3):
        text = (
            f"is compressed with method {compression}; supported are {CODEC_NAMES}: save it with one of them"
        )
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    converted = compression == JPEG or compression in JPEG_2000
    if photometric > MASK and not (photometric == YCBCR and converted):
        text = (
            f"has colours of kind {photometric}; supported are grey, RGB and palette: save it as one of them"
        )
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    if directory.number(32997, 1) != 1:
        raise BadStructureError(
            Reason.IMAGE_UNSUPPORTED, "has volumes as images; save it as a stack of planes"
        )
    sample_format, bits = _pixel_kind(directory)
    return PageShape(width, length, samples, bits, sample_format, planar == 2, compression, photometric)


def _pixel_kind(directory: Directory) -> tuple[int, int]:
    """Sample format and bits, which must be the same for all samples."""
    for code in (258, 339):
        values = directory.numbers(code)
        if values is not None and len(values) > 1 and (values != values[0]).any():
            text = f"mixes pixel types in {directory.name}; save it with one type for all channels"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    bits, sample_format = directory.number(258, 1), directory.number(339, UNSIGNED)
    sample_format = UNSIGNED if sample_format == UNDEFINED else sample_format
    if (sample_format, bits) not in PIXEL_KINDS:
        what = f"{bits}-bit {KIND_NAMES.get(sample_format, 'complex numbers')}"
        text = f"has pixels of {what}, which are not supported; save it as 8-bit, 16-bit or float32"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    return sample_format, bits


def _check_segments(directory: Directory, shape: PageShape) -> tuple[int, int]:
    """Check the strips or tiles; return where the first one starts and the last one ends."""
    tiled = 322 in directory.tags or 324 in directory.tags
    word, offset_code, count_code = ("tile", 324, 325) if tiled else ("strip", 273, 279)
    expected, needed_full, needed_last, rows_of = _segments_needed(directory, shape, tiled)
    decoded = expected * needed_full
    if shape.nbytes > MAX_PLANE_BYTES or decoded > 4 * MAX_PLANE_BYTES:
        text = f"needs {shape.nbytes} bytes for {directory.name}; {MAX_PLANE_BYTES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    offsets, counts = directory.numbers(offset_code), directory.numbers(count_code)
    if offsets is None or counts is None:
        raise BadStructureError(Reason.IMAGE_CORRUPT, f"has no {word}s in {directory.name}; save it again")
    if len(offsets) != expected or len(counts) != expected:
        text = f"has {len(offsets)} {word}s in {directory.name}, its size needs {expected}; save it again"
        raise BadStructureError(Reason.IMAGE_CORRUPT, text)
    if not offsets.all() or not counts.all():
        raise StillOpenError(f"some {word}s of {directory.name} are missing")
    if shape.compression == NONE:
        counts = _uncompressed_counts(counts, needed_full, needed_last, rows_of, word, directory.name)
    end = _end_inside(directory, offsets, counts, word)
    stored = min(sum(counts.tolist()), directory.source.size)
    if decoded > RATIO_FROM_BYTES and decoded > MAX_RATIO * stored:
        text = f"unpacks {stored} bytes to {decoded} in {directory.name}, which no image does; save it again"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    return int(offsets.min()), end


def _segments_needed(directory: Directory, shape: PageShape, tiled: bool) -> tuple[int, int, int, int]:
    """Segments of an image, bytes of a whole one and of the last one of a column, segments of a column."""
    samples = 1 if shape.planar else shape.samples
    planes = shape.samples if shape.planar else 1
    if tiled:
        width, length = directory.number(322, 0), directory.number(323, 0)
        _check_tile(width, length, shape, directory.name)
        full = length * math.ceil(width * samples * shape.bits / 8)
        count = math.ceil(shape.width / width) * math.ceil(shape.length / length) * planes
        return count, full, full, 1
    rows = min(directory.number(278, shape.length), shape.length)
    if rows < 1:
        raise BadStructureError(
            Reason.IMAGE_CORRUPT, f"has strips of 0 rows in {directory.name}; save it again"
        )
    row_bytes = math.ceil(shape.width * samples * shape.bits / 8)
    column = math.ceil(shape.length / rows)
    last = shape.length - rows * (column - 1)
    return column * planes, rows * row_bytes, last * row_bytes, column


def _check_tile(width: int, length: int, shape: PageShape, name: str) -> None:
    if not width or not length:
        raise BadStructureError(Reason.IMAGE_CORRUPT, f"has tiles without a size in {name}; save it again")
    too_wide = width > max(4 * shape.width, MAX_TILE_EDGE) or length > max(4 * shape.length, MAX_TILE_EDGE)
    if too_wide or width * length > MAX_TILE_PIXELS:
        text = f"has tiles of {length} x {width} pixels in {name}; save it with smaller ones"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)


def _uncompressed_counts(counts: Numbers, full: int, last: int, column: int, word: str, name: str) -> Numbers:
    """Bytes that uncompressed segments must have; too few of them are a fault."""
    needed = np.full(len(counts), full, np.uint64)
    needed[column - 1 :: column] = last
    if len(counts) > 1 and (counts < needed).any():
        index = int((counts < needed).argmax())
        text = f"has {counts[index]} bytes in {word} {index} of {name}, where {needed[index]} are needed"
        raise BadStructureError(Reason.IMAGE_CORRUPT, f"{text}; save it again")
    # Of a single strip some programs state a wrong size; its true size follows from the image.
    return needed


def _end_inside(directory: Directory, offsets: Numbers, counts: Numbers, word: str) -> int:
    size = directory.source.size
    if len(offsets) == 1:
        directory.source.require(int(offsets[0]), int(counts[0]), f"{word} 0 of {directory.name}")
        return int(offsets[0]) + int(counts[0])
    starts, lengths = offsets.astype(np.uint64), counts.astype(np.uint64)
    beyond = (starts > size) | (lengths > size - np.minimum(starts, np.uint64(size)))
    if beyond.any():
        index = int(beyond.argmax())
        end = int(starts[index]) + int(lengths[index])
        raise StillOpenError(
            f"{word} {index} of {directory.name} ends at byte {end}, the file at byte {size}"
        )
    return int((starts + lengths).max())


def _has_data(fd: int, start: int, end: int) -> bool:
    """Whether anything was ever written between two offsets; file systems without holes say yes."""
    block = os.fstat(fd).st_blksize
    start = -(-start // block) * block  # the block before may hold headers as well
    if start >= end:
        return True
    try:
        return os.lseek(fd, start, os.SEEK_DATA) < end
    except OSError:
        return False


def _check_promise(
    source: Source, promise: Promise, first: PageShape, page_count: int, first_segment: int
) -> None:
    """Check that the planes which the description promises are there."""
    planes = promise.planes if promise.pixels is None else promise.pixels * first.bits // (8 * first.nbytes)
    if planes <= page_count:
        return
    if promise.contiguous and page_count == 1 and first.compression == NONE:
        source.require(first_segment, planes * first.nbytes, f"the last of {planes} planes")
    elif promise.binding:
        raise StillOpenError(f"its description promises {planes} planes, it has {page_count}")
