"""Images that are folders: one stamp, one digest, and nothing outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from segmentd.ingest import tree
from segmentd.ingest.names import input_filter
from segmentd.ingest.scan import Scan, sight


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.zarr"
    (path / "0" / "c").mkdir(parents=True)
    (path / "zarr.json").write_bytes(b"{}")
    (path / "0" / "c" / "1").write_bytes(b"0123456789")
    return path


@pytest.fixture
def fd(image: Path) -> Iterator[int]:
    opened = os.open(image, tree.FOLDER_FLAGS)
    yield opened
    os.close(opened)


def test_the_stamp_is_that_of_all_files(image: Path, fd: int) -> None:
    os.utime(image / "0" / "c" / "1", ns=(1, 2**61))
    stamp = tree.stamp_of_tree(fd)
    assert (stamp.size_bytes, stamp.mtime_ns, stamp.inode) == (12, 2**61, image.stat().st_ino)
    assert tree.stamp_of_tree(fd) == stamp
    (image / "labels" / "nuclei").mkdir(parents=True)
    (image / "labels" / "nuclei" / "zarr.json").write_bytes(b"{}")
    assert tree.stamp_of_tree(fd) == stamp
    (image / "0" / "c" / "2").write_bytes(b"")
    os.utime(image / "0" / "c" / "2", ns=(1, 2**61 + 1))
    assert tree.stamp_of_tree(fd) != stamp


def test_the_digest_is_of_names_and_content(image: Path, fd: int) -> None:
    digests = {tree.digest(fd)}
    (image / "0" / "c" / "1").rename(image / "0" / "c" / "2")
    digests.add(tree.digest(fd))
    (image / "0" / "c" / "2").write_bytes(b"0123456780")
    digests.add(tree.digest(fd))
    (image / "0" / "c" / "3").write_bytes(b"")
    digests.add(tree.digest(fd))
    assert len(digests) == 4


def test_parts_of_files(fd: int) -> None:
    path = b"0/c/1"
    assert tree.read_file(fd, path) == b"0123456789"
    assert tree.read_file(fd, path, 3, 4) == b"3456"
    assert tree.read_file(fd, path, 8) == b"89"
    assert tree.read_file(fd, path, -3) == b"789"
    assert tree.read_file(fd, path, -30) == b"0123456789"
    assert tree.read_file(fd, path, 30, 4) == b""


@pytest.mark.parametrize(
    "path", [b"1", b"0/c", b"../b", b"0/../zarr.json", b"link", b"linked/1", b"", b"a\0"]
)
def test_what_is_no_file_of_the_folder_is_not_read(path: bytes, image: Path, fd: int) -> None:
    (image.parent / "b").write_bytes(b"outside")
    (image / "link").symlink_to(image.parent / "b")
    (image / "linked").symlink_to(image / "0" / "c")
    assert tree.read_file(fd, path) is None
    assert {file.path for file in tree.files_of(fd)} == {b"zarr.json", b"0/c/1"}


@pytest.mark.parametrize("recursive", [True, False])
def test_a_scan_finds_the_folder_and_nothing_in_it(image: Path, recursive: bool) -> None:
    (image / "thumbnail.png").write_bytes(b"")
    (image / "sub.zarr").mkdir()
    (image.parent / "file.zarr").write_bytes(b"")
    (image.parent / "link.zarr").symlink_to(image)
    wanted = input_filter(["*"])
    scan = Scan(bytes(image.parent), wanted, frozenset(), recursive)
    found = scan.portion(10)
    assert [sighting.path for sighting in found] == [b"a.zarr"]
    assert sight(bytes(image.parent), [b"a.zarr", b"file.zarr", b"link.zarr"]) == found
    assert not wanted(b"a.zarr/thumbnail.png")
