"""Looking at the disk: what is there, and what one file is like."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segmentd.errors import Reason
from segmentd.ingest import confine, scan, structure
from segmentd.ingest.names import input_filter
from segmentd.ingest.verdict import CLOSED, Verdict
from segmentd.records import FileStamp


def paths(folder: Path, **options: Any) -> list[bytes]:
    wanted = input_filter(options.pop("include", ["*"]))
    walk = scan.Scan(bytes(folder), wanted, **{"skip": frozenset(), "recursive": True, **options})
    found = []
    while portion := walk.portion(3):
        assert len(portion) <= 3
        found += portion
    assert walk.portion(3) == []
    for sighting in found:
        assert sighting.stamp == confine.make_stamp((folder / os.fsdecode(sighting.path)).stat())
    return [sighting.path for sighting in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = "b.tif a.tif sub/c.png sub/deep/d.jpg seg/a.tif.labels.ome.tif seg/x.tif .git/e.tif"
    for name in names.split():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "notes.txt").write_text("no input")
    (tmp_path / "link.tif").symlink_to("a.tif")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "folder.tif").mkdir()
    os.mkfifo(tmp_path / "pipe.tif")
    with open(bytes(tmp_path) + b"/\xff\xfe.tif", "w") as file:  # noqa: PTH123
        file.write("a name that is no text")
    return tmp_path


def test_all_images_are_found_once(folder: Path) -> None:
    top, sub = [b"a.tif", b"b.tif", b"\xff\xfe.tif"], [b"sub/c.png", b"sub/deep/d.jpg"]
    assert paths(folder) == [*top, b"seg/x.tif", *sub]
    assert paths(folder, skip=frozenset({b"seg"})) == [*top, *sub]
    assert paths(folder, skip=frozenset({b"seg"}), recursive=False) == top
    assert paths(folder, skip=frozenset({b"seg"}), start=b"sub") == sub
    assert paths(folder, include=["sub/*"]) == sub
    assert paths(folder, start=b"none") == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        paths(tmp_path / "none")


def test_subfolders_that_cannot_be_read_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: bytes) -> Any:
        if path.endswith(b"/sub"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    walk = scan.Scan(bytes(folder), input_filter(["*"]), b"seg", recursive=True)
    assert [sighting.path for sighting in walk.portion(99)] == [b"a.tif", b"b.tif", b"\xff\xfe.tif"]
    assert walk.forbidden == [b"sub"]


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO, errno.EHOSTDOWN])
def test_a_share_that_goes_away_in_the_middle_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    scandir = os.scandir

    def fail(path: bytes) -> Any:
        if path.endswith(b"/sub"):
            raise OSError(code, os.strerror(code))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match=os.strerror(code)):
        paths(folder)


def test_single_files_are_sighted(folder: Path) -> None:
    names = b"a.tif none.tif link.tif folder.tif pipe.tif \xff\xfe.tif"
    found = scan.sight(bytes(folder), names.split())
    assert [sighting.path for sighting in found] == [b"a.tif", b"\xff\xfe.tif"]
    assert found[0].stamp == confine.make_stamp((folder / "a.tif").stat())


def test_a_look_finds_stamp_and_structure(folder: Path) -> None:
    tifffile.imwrite(folder / "image.tif", np.zeros((9, 9), np.uint8))
    found = scan.look(bytes(folder), b"image.tif")
    assert found == scan.Look(confine.make_stamp((folder / "image.tif").stat()), CLOSED)
    text = scan.look(bytes(folder), b"a.tif")
    assert text is not None
    assert text.structure.verdict is Verdict.BAD
    for path in (b"none.tif", b"link.tif", b"pipe.tif", b"folder.tif", b"none/a.tif"):
        assert scan.look(bytes(folder), path) is None


def test_a_file_that_grows_during_the_look_is_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "image.tif"
    tifffile.imwrite(path, np.zeros((9, 9), np.uint8))
    check = structure.check

    def grow(fd: int, name: str, neighbours: Any) -> Any:
        with path.open("ab") as file:
            file.write(b"more")
        return check(fd, name, neighbours)

    monkeypatch.setattr(structure, "check", grow)
    found = scan.look(bytes(folder), b"image.tif")
    assert found is not None
    assert found.structure.verdict is Verdict.OPEN
    assert found.stamp == confine.make_stamp(path.stat())


@pytest.mark.parametrize("where", ["opening", "reading"])
def test_a_file_that_cannot_be_read_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*args: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    module, name = (confine, "open_in") if where == "opening" else (structure, "check")
    monkeypatch.setattr(module, name, refuse)
    found = scan.look(bytes(folder), b"a.tif")
    assert found is not None

    assert found.structure.fault is not None
    assert found.structure.fault.reason == Reason.IMAGE_UNREADABLE
    assert found.structure.fault.message.startswith("a.tif cannot be read (Permission denied)")
    assert isinstance(found.stamp, FileStamp)
    assert scan.look(bytes(folder), b"none.tif") is None
