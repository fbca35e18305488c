"""Nothing outside the watched folder is opened, and nothing is waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from segmentd.ingest import confine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "watched"
    (inside / "sub" / "deep").mkdir(parents=True)
    (inside / "a.tif").write_text("a")
    (inside / "sub" / "deep" / "b.tif").write_text("b")
    (tmp_path / "secret.tif").write_text("secret")
    (inside / "link.tif").symlink_to(tmp_path / "secret.tif")
    (inside / "inner.tif").symlink_to("a.tif")
    (inside / "up").symlink_to(tmp_path)
    (inside / "self").symlink_to(".")
    (inside / "loop.tif").symlink_to("loop.tif")
    os.mkfifo(inside / "pipe.tif")
    return inside


@pytest.mark.parametrize(("path", "content"), [(b"a.tif", b"a"), (b"sub/deep/b.tif", b"b")])
def test_files_inside_are_opened(folder: Path, path: bytes, content: bytes) -> None:
    fd = confine.open_beneath(folder, path)
    assert os.read(fd, 10) == content
    assert not os.get_inheritable(fd)
    assert confine.stamp_of(fd) == confine.make_stamp((folder / os.fsdecode(path)).stat())
    os.close(fd)


@pytest.mark.parametrize(
    "path",
    b"link.tif inner.tif loop.tif pipe.tif sub . .. ../secret.tif /etc/hostname sub/../a.tif "
    b"sub//deep/b.tif sub/deep/b.tif/ ./a.tif".split(),
)
def test_links_folders_and_ways_out_are_not_regular(folder: Path, path: bytes) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(confine.NotRegularError):
        confine.open_beneath(folder, path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("path", b"up/secret.tif self/a.tif a.tif/b.tif none/a.tif none.tif".split())
def test_no_link_on_the_way_is_followed(folder: Path, path: bytes) -> None:
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        confine.open_beneath(folder, path)


def test_a_socket_is_not_regular(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.tif")
        with pytest.raises(confine.NotRegularError):
            confine.open_beneath(folder, b"socket.tif")


def test_a_watched_folder_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shortcut").symlink_to(folder)
    os.close(confine.open_beneath(tmp_path / "shortcut", b"a.tif"))


def test_a_file_that_the_user_names_may_be_a_link_but_not_a_pipe(folder: Path) -> None:
    os.close(confine.open_file(folder / "link.tif"))
    for name in ("pipe.tif", "sub"):
        with pytest.raises(confine.NotRegularError):
            confine.open_file(folder / name)


def test_a_writer_is_seen(folder: Path) -> None:
    fd = confine.open_beneath(folder, b"a.tif")
    try:
        assert not confine.is_open_for_writing(fd)
        with (folder / "a.tif").open("ab"):
            assert confine.is_open_for_writing(fd)
        assert not confine.is_open_for_writing(fd)
        with (folder / "a.tif").open("rb"):
            assert not confine.is_open_for_writing(fd)
    finally:
        os.close(fd)
