"""The inbox between the thread of file events and the loop."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segmentd.ingest import events, inotify
from segmentd.ingest.events import FolderEvents, Inbox, Mail


@pytest.fixture
def waker() -> list[int]:
    return []


@pytest.fixture
def inbox(waker: list[int]) -> Inbox:
    times = itertools.count(100.0)
    return Inbox(lambda: waker.append(1), lambda: next(times))


def test_events_of_a_file_are_one_and_a_close_is_kept(inbox: Inbox, waker: list[int]) -> None:
    inbox.file(b"a", closed=False)
    inbox.file(b"a", closed=True)
    inbox.file(b"a", closed=False)
    inbox.file(b"b", closed=False)
    inbox.folder(b"new")
    assert waker == [1]
    assert inbox.take() == Mail({b"a": True, b"b": False}, {b"a": 100.0}, {b"new"}, scan=False)
    assert inbox.take() == Mail()
    inbox.lost()
    assert waker == [1, 1]
    assert inbox.take() == Mail(scan=True)


def test_a_file_that_was_closed_is_closed_under_its_new_name(inbox: Inbox) -> None:
    inbox.file(b"a.part", closed=True)
    inbox.take()
    inbox.moved(b"a.part", b"a")
    inbox.moved(b"elsewhere", b"b")
    mail = inbox.take()
    assert (mail.files, mail.closed_at) == ({b"a": True, b"b": False}, {b"a": 100.0})
    inbox.moved(b"a.part", b"c")
    assert inbox.take().files == {b"c": False}


def test_too_many_events_become_a_scan(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_PATHS", 3)
    for number in range(5):
        inbox.file(b"%d" % number, closed=True)
    mail = inbox.take()
    assert mail.scan
    assert len(mail.files) <= 3


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[..., tuple[FolderEvents, Post]]]:
    """Listen to `tmp_path`; whatever was begun is stopped at the end."""
    begun: list[FolderEvents] = []

    def listen(recursive: bool = True, skip: frozenset[bytes] = frozenset()) -> tuple[FolderEvents, Post]:
        post = Post()
        begun.append(FolderEvents(bytes(tmp_path), recursive, skip, post.inbox))
        return begun[-1], post

    yield listen
    for one in begun:
        one.stop()


class Post:
    """An inbox, and all mail that came so far."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self.inbox = Inbox(self._woken.set)
        self.all = Mail()

    def until(self, condition: Callable[[Mail], object]) -> Mail:
        """Wait until the mail is enough."""
        while not condition(self.all):
            assert self._woken.wait(20), self.all
            self._woken.clear()
            mail = self.inbox.take()
            self.all.files |= mail.files
            self.all.folders |= mail.folders
            self.all.scan |= mail.scan
        return self.all


Listening = Callable[..., tuple[FolderEvents, Post]]


def test_what_happens_to_files_and_folders_is_told(tmp_path: Path, listening: Listening) -> None:
    (tmp_path / "old").mkdir()
    _, post = listening()
    (tmp_path / "old" / "a.tif").write_bytes(b"a")
    post.until(lambda mail: mail.files.get(b"old/a.tif"))
    (tmp_path / "new").mkdir()
    post.until(lambda mail: b"new" in mail.folders)
    (tmp_path / "new" / "b.part").write_bytes(b"b")
    (tmp_path / "new" / "b.part").rename(tmp_path / "b.tif")
    mail = post.until(lambda mail: b"b.tif" in mail.files)
    assert mail.files[b"b.tif"], "that it was closed counts under its new name"
    assert not mail.scan


def test_folders_that_are_moved_keep_their_files_apart(tmp_path: Path, listening: Listening) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    _, post = listening()
    (tmp_path / "a").rename(tmp_path / "b")
    post.until(lambda mail: b"b" in mail.folders)
    (tmp_path / "b" / "deep" / "x.tif").write_bytes(b"x")
    post.until(lambda mail: mail.files.get(b"b/deep/x.tif"))
    assert b"a/deep/x.tif" not in post.all.files


@pytest.mark.parametrize("recursive", [True, False])
def test_of_an_image_that_is_a_folder_only_the_folder_is_told(
    tmp_path: Path, listening: Listening, recursive: bool
) -> None:
    _, post = listening(recursive)
    image = tmp_path / "a.zarr"
    image.mkdir()
    mail = post.until(lambda mail: mail.files)
    assert (mail.files, mail.folders) == ({b"a.zarr": False}, set())
    (image / "0").mkdir()
    (image / "0" / "1").write_bytes(b"x")
    (image / "zarr.json").write_bytes(b"x")
    (tmp_path / "last.tif").write_bytes(b"x")
    mail = post.until(lambda mail: b"last.tif" in mail.files)
    assert set(mail.files) == {b"a.zarr", b"last.tif"}
    assert mail.folders == set()


def test_own_results_and_with_a_flat_watch_all_subfolders_are_left_alone(
    tmp_path: Path, listening: Listening
) -> None:
    for name in ("segmented", "sub"):
        (tmp_path / name).mkdir()
    _, deep = listening(skip=frozenset({b"segmented"}))
    _, flat = listening(recursive=False)
    for name in ("segmented/r.tif", "sub/s.tif", "last.tif"):
        (tmp_path / name).write_bytes(b"x")
    assert deep.until(lambda mail: mail.files.get(b"last.tif")).files.keys() == {b"sub/s.tif", b"last.tif"}
    assert flat.until(lambda mail: mail.files.get(b"last.tif")).files.keys() == {b"last.tif"}


def test_an_overflow_is_told_and_folders_made_meanwhile_are_watched(
    tmp_path: Path, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events after the first are lost, as when the kernel's queue is full."""
    read = inotify.Inotify.read
    lost = threading.Event()

    def overflowing(self: inotify.Inotify) -> list[inotify.Event]:
        events = read(self)
        if lost.is_set():
            return events
        lost.set()
        return [inotify.Event(-1, inotify.OVERFLOW, 0, b"")]

    monkeypatch.setattr(inotify.Inotify, "read", overflowing)
    events, post = listening()
    (tmp_path / "new").mkdir()
    post.until(lambda mail: mail.scan)
    assert (events.overflows, events.alive()) == (1, True)
    (tmp_path / "new" / "a.tif").write_bytes(b"a")
    post.until(lambda mail: mail.files.get(b"new/a.tif"))


def test_events_end_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    post = Post()
    events = FolderEvents(bytes(tmp_path / "gone"), True, frozenset(), post.inbox)
    (tmp_path / "gone").rmdir()
    assert post.until(lambda mail: mail.scan)
    assert not events.alive()
    events.stop()


def test_running_out_of_watches_ends_the_events(
    tmp_path: Path, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, post = listening()

    def refuse(self: inotify.Inotify, folder: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inotify.Inotify, "add", refuse)
    (tmp_path / "one-too-many").mkdir()
    assert post.until(lambda mail: mail.scan)
    assert not events.alive()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="No such file"):
        FolderEvents(bytes(tmp_path / "none"), True, frozenset(), Post().inbox)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
