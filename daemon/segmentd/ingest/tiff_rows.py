"""Reads some rows of a TIFF page without decoding the rest. Runs in a worker process.

A page is (S, D, Y, X, samples) in tifffile's `shaped`: S separate colour planes, samples of a pixel beside
each other. Pages with a depth D above 1 are not read by rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from segmentd.errors import Reason
from segmentd.ingest.verdict import BadStructureError

AnyArray = npt.NDArray[Any]
ReadAt = Callable[[int, memoryview], int]


def rows_decoded_together(page: tifffile.TiffPage, contiguous: bool) -> int:
    """How many rows have to be decoded to get one; all of them where a page cannot be read by rows."""
    height = int(page.imagelength)
    if page.shaped[1] != 1:
        return height
    if contiguous:
        return 1
    return min(height, int(page.tilelength if page.is_tiled else page.rowsperstrip))


def decoded_rows(page: tifffile.TiffPage, read_at: ReadAt, start: int, stop: int) -> AnyArray:
    """Decode rows start..stop-1 of a page: array (S, rows, X, samples)."""
    separate, _, _, width, samples = page.shaped
    out = np.zeros((separate, stop - start, width, samples), page.dtype)
    for index in _segments(page, start, stop):
        data = bytearray(page.databytecounts[index])
        if read_at(page.dataoffsets[index], memoryview(data)) != len(data):
            raise BadStructureError(Reason.IMAGE_INCOMPLETE, "ends before its last segment; copy it again")
        segment, place, shape = page.decode(bytes(data), index, jpegtables=page.jpegtables)
        if segment is None:
            raise BadStructureError(Reason.IMAGE_CORRUPT, f"has an empty segment {index}; save it again")
        plane, _, top, left, _ = place
        first, last = max(top, start), min(top + shape[1], stop)
        if first < last:
            columns = slice(left, min(left + shape[2], width))
            rows = segment[0, first - top : last - top, : columns.stop - columns.start]
            out[plane, first - start : last - start, columns] = rows
    return out


def contiguous_rows(
    page: tifffile.TiffPage, dtype: np.dtype[Any], read_at: ReadAt, offset: int, start: int, stop: int
) -> AnyArray:
    """Read rows start..stop-1 of an uncompressed page that begins at `offset`: (S, rows, X, samples)."""
    separate, _, height, width, samples = page.shaped
    out = np.empty((separate, stop - start, width, samples), dtype)
    row_bytes = width * samples * dtype.itemsize
    for plane in range(separate):
        target = memoryview(out[plane].reshape(-1).view(np.uint8))
        if read_at(offset + (plane * height + start) * row_bytes, target) != len(target):
            raise BadStructureError(Reason.IMAGE_INCOMPLETE, "ends before its last row; copy it again")
    return out


def _segments(page: tifffile.TiffPage, start: int, stop: int) -> Iterator[int]:
    """Numbers of the tiles or strips that hold rows start..stop-1."""
    separate, _, height, width, _ = page.shaped
    rows = int(page.tilelength if page.is_tiled else page.rowsperstrip)
    across = -(-width // page.tilewidth) if page.is_tiled else 1
    down = -(-height // rows)
    for plane in range(separate):
        for row in range(start // rows, -(-stop // rows)):
            first = (plane * down + row) * across
            yield from range(first, first + across)
