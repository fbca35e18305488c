"""Regions of shared memory: what may be opened, read and written, and what a caller may do meanwhile."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.open_inference import regions
from segmentd.rpc.open_inference.regions import Regions

SIZE = 3 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.arange(SIZE, dtype=np.uint32).astype(np.uint8).tofile(tmp_path / "frames")
    return tmp_path


@pytest.fixture
def known(folder: Path) -> Iterator[Regions]:
    known = Regions(folder)
    known.register("a", "/frames", 100, SIZE - 100)
    yield known
    known.clear()


@contextmanager
def refused(reason: Reason, message: str) -> Iterator[None]:
    with pytest.raises(SegmentdError, match=message) as caught:
        yield
    assert caught.value.reason is reason


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def read(known: Regions, name: str, offset: int, count: int) -> list[int]:
    target = np.zeros(count, np.uint8)
    known.get(name).part(offset, count).read(target)
    return target.tolist()


def test_bytes_are_counted_from_the_offset_of_the_region(known: Regions, folder: Path) -> None:
    assert read(known, "a", 0, 3) == [100, 101, 102]
    assert read(known, "a", 156, 2) == [0, 1]
    known.get("a").part(1, 2).write(np.array([7, 8], np.uint8))
    assert (folder / "frames").read_bytes()[99:105] == bytes([99, 100, 7, 8, 103, 104])


def test_a_part_is_copied_piece_by_piece(known: Regions, folder: Path) -> None:
    (folder / "out").write_bytes(bytes(SIZE))
    known.register("out", "out", 0, SIZE)
    known.get("a").part(5, SIZE - 205).copy_to(known.get("out").part(10, SIZE - 10).first(SIZE - 205))
    image, copied = (folder / "frames").read_bytes(), (folder / "out").read_bytes()
    assert copied[10 : SIZE - 195] == image[105 : SIZE - 100]
    assert copied[:10] == bytes(10)
    assert copied[SIZE - 195 :] == bytes(195)


@pytest.mark.parametrize(("offset", "count"), [(0, SIZE), (SIZE - 100, 1), (1 << 62, 5), (SIZE - 103, 4)])
def test_nothing_beyond_a_region_is_read(known: Regions, offset: int, count: int) -> None:
    with refused(Reason.REGION_TOO_SMALL, "register a larger one"):
        known.get("a").part(offset, count)


@pytest.mark.parametrize("left", [0, 100, 105, SIZE - 1])
def test_a_region_that_was_truncated_is_an_error_and_stays_as_it_is(
    known: Regions, folder: Path, left: int
) -> None:
    part = known.get("a").part(0, SIZE - 100)
    os.truncate(folder / "frames", left)
    with refused(Reason.REGION_TOO_SMALL, "'frames' was truncated|'/frames' was truncated"):
        part.read(np.zeros(SIZE - 100, np.uint8))
    with refused(Reason.REGION_TOO_SMALL, "was truncated; register it again"):
        part.write(np.zeros(SIZE - 100, np.uint8))
    assert (folder / "frames").stat().st_size == left


@pytest.mark.parametrize(
    "key", ["", "/", ".", "..", "/..", "../frames", "a/b", "//frames", "/a/", "x\0y", "sem.lock", "f" * 256]
)
def test_only_plain_names_are_opened(known: Regions, key: str) -> None:
    with refused(Reason.BAD_FIELD, "must be the name of a shared memory object"):
        known.register("b", key, 0, 1)


def test_only_files_are_opened_and_nothing_waits(
    known: Regions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # names of sockets are short
    (folder / "link").symlink_to(folder / "frames")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for name in ("link", "pipe", "folder", "socket", "missing"):
            with refused(Reason.REGION_UNUSABLE, f"'{name}' "):
                known.register("b", name, 0, 1)
    assert [region.name for region in known.list()] == ["a"]


def test_what_another_user_keeps_to_themselves_is_not_opened(
    known: Regions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    for mode in (0o600, 0o660, 0o664, 0o662):
        (folder / "frames").chmod(mode)
        with refused(Reason.REGION_UNUSABLE, "belongs to another user"):
            known.register("b", "frames", 0, 1)
    (folder / "frames").chmod(0o666)
    known.register("b", "frames", 0, 1)


def test_names_sizes_and_how_many(known: Regions, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(Reason.REGION_EXISTS, "'a' is registered already"):
        known.register("a", "frames", 0, 1)
    with refused(Reason.BAD_FIELD, "name: must be"):
        known.register("", "frames", 0, 1)
    with refused(Reason.BAD_FIELD, "byte_size: must be at least 1"):
        known.register("b", "frames", 0, 0)
    with refused(Reason.REGION_TOO_SMALL, "of 2 from 3,145,727 on does not fit"):
        known.register("b", "frames", SIZE - 1, 2)
    with refused(Reason.REGION_UNKNOWN, "no shared memory region 'b'"):
        known.get("b")
    known.unregister("b")  # as Triton: there is none afterwards
    monkeypatch.setattr(regions, "MOST_REGIONS", 2)
    known.register("b", "frames", 0, 1)
    with refused(Reason.DEVICE_BUSY, "unregister some"):
        known.register("c", "frames", 0, 1)


def test_regions_whose_object_was_deleted_make_room(
    known: Regions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "MOST_REGIONS", 1)
    (folder / "next").write_bytes(bytes(8))
    (folder / "frames").unlink()
    assert read(known, "a", 0, 1) == [100]  # still there for those who have it
    known.register("b", "next", 0, 8)
    assert [region.name for region in known.list()] == ["b"]


def test_descriptors_are_closed_with_the_last_reference(folder: Path) -> None:
    before = descriptors()
    known = Regions(folder)
    for number in range(20):
        known.register(str(number), "frames", 0, 8)
    part = known.get("3").part(0, 8)
    known.clear()
    assert descriptors() == before + 1
    part.read(np.zeros(8, np.uint8))  # a thread that was at it
    del part
    assert descriptors() == before
