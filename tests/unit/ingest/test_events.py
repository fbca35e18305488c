"""The inbox between the thread of file events and the loop."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import pytest

from segmentd.ingest import events
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


def test_a_warning_of_the_library_becomes_a_scan(inbox: Inbox, tmp_path: Path) -> None:
    """Of an overflow of the kernel's queue, for instance."""
    listening = FolderEvents(bytes(tmp_path), True, inbox)
    try:
        assert listening.alive()
        logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed")
        assert inbox.take().scan
    finally:
        listening.stop()
    assert not listening.alive()
    logging.getLogger("watchdog.observers.inotify_c").warning("nobody listens")
    assert not inbox.take().scan


def test_a_folder_that_is_not_there_is_an_error(inbox: Inbox, tmp_path: Path) -> None:
    before = list(logging.getLogger("watchdog").handlers)
    with pytest.raises(OSError, match="No such file"):
        FolderEvents(bytes(tmp_path / "none"), True, inbox)
    assert logging.getLogger("watchdog").handlers == before
