"""The structural check of CZI: open, closed or wrong, without any library."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from segmentd.errors import Reason
from segmentd.ingest import structure
from segmentd.ingest.czi_structure import examine_czi
from segmentd.ingest.settle import Ready, Settle
from segmentd.ingest.verdict import Structure, Verdict
from segmentd.records import FileStamp

DIRECTORY_AT, PENDING_AT = 84, 100


@pytest.fixture
def mosaic(shared_data: Path) -> bytearray:
    return bytearray((shared_data / "zeiss" / "generated" / "mosaic_S2_T2_Z3_C2.czi").read_bytes())


def check(data: bytes, folder: Path) -> Structure:
    path = folder / "x.czi"
    path.write_bytes(data)
    with path.open("rb") as file:
        return structure.check(file.fileno(), "x.czi")


def entry_at(data: bytes, number: int = 0) -> int:
    """Offset of a directory entry; all have the same length here."""
    directory = struct.unpack_from("<q", data, DIRECTORY_AT)[0] + 32
    start = directory + 128
    length = 32 + 20 * struct.unpack_from("<i", data, start + 28)[0]
    return int(start + number * length)


def test_a_file_is_open_until_its_last_byte(mosaic: bytearray, tmp_path: Path) -> None:
    assert check(mosaic, tmp_path).verdict is Verdict.CLOSED
    needed = max(struct.unpack_from("<qq", mosaic, DIRECTORY_AT))
    for size in (16, 111, 500, 5000, len(mosaic) // 2, needed + 100):
        found = check(mosaic[:size], tmp_path)
        assert found.verdict is Verdict.OPEN, size
        assert found.fault is not None
        assert found.fault.reason is Reason.IMAGE_INCOMPLETE


def test_a_directory_that_is_not_written_yet_is_waited_for(mosaic: bytearray, tmp_path: Path) -> None:
    directory = struct.unpack_from("<q", mosaic, DIRECTORY_AT)[0]
    zeroed = mosaic[:directory] + bytes(len(mosaic) - directory)
    assert check(zeroed, tmp_path).verdict is Verdict.OPEN
    struct.pack_into("<q", mosaic, DIRECTORY_AT, 0)
    found = check(mosaic, tmp_path)
    assert found.verdict is Verdict.OPEN
    assert "its directory has not been written yet" in str(found.fault)


def test_a_tile_that_is_not_written_yet_is_waited_for(mosaic: bytearray, tmp_path: Path) -> None:
    position = struct.unpack_from("<q", mosaic, entry_at(mosaic) + 6)[0]
    mosaic[position : position + 200] = bytes(200)
    assert check(mosaic, tmp_path).verdict is Verdict.OPEN


def test_planes_that_are_missing_are_waited_for(mosaic: bytearray, tmp_path: Path) -> None:
    directory = struct.unpack_from("<q", mosaic, DIRECTORY_AT)[0] + 32
    count = struct.unpack_from("<i", mosaic, directory)[0]
    struct.pack_into("<i", mosaic, directory, count - 4)  # the four tiles of the last plane
    found = check(mosaic, tmp_path)
    assert found.verdict is Verdict.OPEN
    assert "it has 23 of 24 planes" in str(found.fault)


def test_announced_changes_are_believed_until_all_is_quiet(mosaic: bytearray, tmp_path: Path) -> None:
    struct.pack_into("<i", mosaic, PENDING_AT, 1)
    found = check(mosaic, tmp_path)
    assert (found.verdict, found.announced_changes) == (Verdict.CLOSED, True)
    settle, stamp = Settle(2.0, 60.0), FileStamp(1, 1, 1, 1)
    settle.closed(stamp, 0.0)  # the writer closed it, to open it again for the next image
    settle.sighted(b"x.czi", stamp, 0.0)
    for now in (0.0, 2.0):
        [due] = settle.due(now, 9)
        assert settle.judged(due, stamp, found, now) is None
    [due] = settle.due(60.0, 9)
    assert settle.judged(due, stamp, found, 60.0) == Ready(b"x.czi", stamp, 60.0)


@pytest.mark.parametrize(
    ("offset", "value", "reason", "message"),
    [
        (18, 100, Reason.IMAGE_UNSUPPORTED, "the raw format 100 of a camera; supported are none, JPEG XR"),
        (18, 1000, Reason.IMAGE_UNSUPPORTED, "the raw format 1000 of a microscope"),
        (18, 2, Reason.IMAGE_UNSUPPORTED, "compressed with LZW"),
        (2, 10, Reason.IMAGE_UNSUPPORTED, "pixels of type Gray64ComplexFloat"),
        (14, 1, Reason.IMAGE_UNSUPPORTED, "parts in other files"),
        (28, 4000, Reason.IMAGE_UNSUPPORTED, "a directory of another kind"),
    ],
)
def test_what_cannot_be_read_is_named(
    mosaic: bytearray, tmp_path: Path, offset: int, value: int, reason: Reason, message: str
) -> None:
    entry = entry_at(mosaic)
    position = struct.unpack_from("<q", mosaic, entry + 6)[0]
    for place in (entry, position + 32 + 16):  # the directory and the tile itself
        struct.pack_into("<i", mosaic, place + offset, value)
    found = check(mosaic, tmp_path)
    assert found.verdict is Verdict.BAD
    assert found.fault is not None
    assert found.fault.reason is reason
    assert message in found.fault.message


def test_scenes_types_and_tiles(mosaic: bytearray, tmp_path: Path) -> None:
    path = tmp_path / "x.czi"
    path.write_bytes(mosaic)
    with path.open("rb") as file:
        summary = examine_czi(file.fileno())
    assert [(scene, place.x, place.y) for scene, place in summary.scenes] == [(0, 0, 0), (1, 400, 200)]
    assert (summary.times, summary.zs, summary.channels) == ((0, 1), (0, 1, 2), (0, 1))
    assert summary.pixel_types == (1, 0)
    assert not summary.pending
