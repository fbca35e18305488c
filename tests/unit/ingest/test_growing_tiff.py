"""Planes of TIFFs that are still being written: what is called complete has its last pixels already."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segmentd.ingest import structure
from segmentd.ingest.growing_tiff import GrowingTiff
from segmentd.ingest.tiff import TiffImage
from segmentd.ingest.tiff_layout import MICROMANAGER_TAG
from segmentd.ingest.tiff_structure import TiffSummary
from segmentd.ingest.verdict import BadStructureError, StillOpenError
from segmentd.records import PlaneIndex

Pixels = npt.NDArray[Any]
Found = dict[PlaneIndex, Pixels]
Writer = Callable[[Path], Iterator[None]]

COUNT = 6
STACK = np.random.default_rng(7).integers(1, 60_000, (COUNT, 40, 50)).astype(np.uint16)


def complete(path: Path) -> tuple[Found, int]:
    """The planes that are called complete, and how many the file promises."""
    fd = os.open(path, os.O_RDONLY)
    try:
        image = GrowingTiff(fd)
        return {index: image.read(index) for _, index in image.complete()}, image.total
    except (StillOpenError, BadStructureError):
        return {}, -1
    finally:
        os.close(fd)


def planes(path: Path) -> Found:
    """The planes of the whole file."""
    with path.open("rb") as file:
        summary = structure.examine(file.fileno(), path.name)
        assert isinstance(summary, TiffSummary)
        image = TiffImage(file.fileno(), summary)
        return {index: image.read(index) for index in image.info.planes()}


def appended(path: Path, **options: Any) -> Iterator[None]:
    with tifffile.TiffWriter(path) as writer:
        for plane in STACK:
            writer.write(plane, **options)
            writer.filehandle.flush()
            yield


def by_tifffile(path: Path) -> Iterator[None]:
    return appended(path, contiguous=True)


def page_by_page(path: Path) -> Iterator[None]:
    return appended(path, contiguous=False, metadata=None)


def compressed(path: Path) -> Iterator[None]:
    return appended(path, contiguous=False, metadata=None, compression="zlib")


def big_endian(path: Path) -> Iterator[None]:
    with tifffile.TiffWriter(path, byteorder=">", bigtiff=True) as writer:
        for plane in STACK:
            writer.write(plane, contiguous=False, metadata=None, tile=(16, 16))
            writer.filehandle.flush()
            yield


def micromanager(path: Path) -> Iterator[None]:
    """Each page says where it belongs: three times, two channels."""
    with tifffile.TiffWriter(path) as writer:
        for number, plane in enumerate(STACK):
            place = json.dumps({"Axes": {"time": number // 2, "channel": f"C{number % 2}"}})
            tag = (MICROMANAGER_TAG, 2, 0, place, True)
            writer.write(plane, contiguous=False, metadata=None, extratags=[tag])
            writer.filehandle.flush()
            yield


def in_pieces(data: bytes) -> Writer:
    """Write a file from front to back."""

    def write(path: Path) -> Iterator[None]:
        with path.open("wb") as file:
            for start in range(0, len(data), 1000):
                file.write(data[start : start + 1000])
                file.flush()
                yield

    return write


def encoded(**options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, options.pop("data", STACK), **options)
    return file.getvalue()


def in_room_taken_in_advance(path: Path) -> Iterator[None]:
    """The whole file is there at once, with all directories and without pixels."""
    pixels = tifffile.memmap(path, shape=STACK.shape, dtype=STACK.dtype, photometric="minisblack")
    for plane, filled in zip(STACK, pixels, strict=True):
        yield
        filled[:20] = plane[:20]
        pixels.flush()
        yield
        filled[:] = plane
        pixels.flush()
    yield


def imagej_as_fiji(data: Pixels, text: str) -> bytes:
    """One directory in front, then all planes; the description says how many."""
    height, width = data.shape[-2:]
    description = text.encode() + b"\0"
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)]
    at = 8 + 2 + 9 * 12 + 4
    tags += [(270, 2, len(description), at), (273, 4, 1, 1000), (278, 4, 1, height)]
    tags += [(279, 4, 1, width * height * 2)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + description
    return head.ljust(1000, b"\0") + data.astype("<u2").tobytes()


IMAGEJ = "ImageJ=1.54f\nimages=6\nchannels=2\nframes=3\nhyperstack=true\n"
OME = {"ome": True, "photometric": "minisblack"}

# Writer, planes that it has in the end, and what it promises (0: it does not say).
WRITERS: dict[str, tuple[Writer, int, int]] = {
    "tifffile, appended": (by_tifffile, 6, 0),
    "a directory for each page": (page_by_page, 6, 0),
    "compressed": (compressed, 6, 0),
    "BigTIFF, big endian, tiles": (big_endian, 6, 0),
    "Micro-Manager": (micromanager, 3, 0),
    "ImageJ": (in_pieces(imagej_as_fiji(STACK, IMAGEJ)), 3, 3),
    "OME-TIFF with its XML in front": (
        in_pieces(encoded(**OME, compression="zlib", metadata={"axes": "ZYX"})),
        6,
        6,
    ),
    "OME-TIFF with channels": (
        in_pieces(
            encoded(**OME, compression="zlib", data=STACK.reshape(3, 2, 40, 50), metadata={"axes": "TCYX"})
        ),
        3,
        3,
    ),
    "compressed, with its shape in front": (in_pieces(encoded(compression="zlib")), 6, 6),
}


@pytest.mark.parametrize("name", WRITERS)
def test_complete_planes_are_those_of_the_whole_file(name: str, tmp_path: Path) -> None:
    write, count, promised = WRITERS[name]
    path = tmp_path / "a.tif"
    seen: Found = {}
    for _ in write(path):
        found, total = complete(path)
        assert total in (-1, promised)
        assert seen.keys() <= found.keys()
        seen |= found
    whole = planes(path)
    assert len(whole) == count
    assert len(seen) >= count - 1, "all but the last one are seen while the file grows"
    for index, pixels in seen.items():
        np.testing.assert_array_equal(pixels, whole[index])


def test_room_taken_in_advance_is_no_plane(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for step, _ in enumerate(in_room_taken_in_advance(path)):
        found, _ = complete(path)
        # A plane counts when the next one was begun.
        assert len(found) == max(0, -(-step // 2) - 1), step
        for index, pixels in found.items():
            np.testing.assert_array_equal(pixels[0], STACK[index.z])


def ome_at_the_end(path: Path) -> Iterator[None]:
    with tifffile.TiffWriter(path, ome=True) as writer:
        for plane in STACK:
            writer.write(plane, contiguous=False)
            writer.filehandle.flush()
            yield


def images_of_their_own(path: Path) -> Iterator[None]:
    return appended(path, contiguous=False)


def imagej_by_tifffile(path: Path) -> Iterator[None]:
    with tifffile.TiffWriter(path, imagej=True) as writer:
        for plane in STACK:
            writer.write(plane, contiguous=True)
            writer.filehandle.flush()
            yield


@pytest.mark.parametrize("write", [ome_at_the_end, images_of_their_own, imagej_by_tifffile])
def test_where_the_file_does_not_say_what_its_pages_are_nothing_is(write: Writer, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for _ in write(path):
        assert complete(path)[0] == {}


def test_cut_anywhere_no_plane_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for data in (encoded(**OME), encoded(), encoded(imagej=True), imagej_as_fiji(STACK, IMAGEJ)):
        path.write_bytes(data)
        whole = planes(path)
        for size in range(0, len(data), 377):
            path.write_bytes(data[:size])
            for index, pixels in complete(path)[0].items():
                np.testing.assert_array_equal(pixels, whole[index])
