"""File events of a folder from inotify, collected for a task of the event loop.

Events only shorten the delay until the next scan. Their own thread puts them into an inbox that cannot grow
without bound; when something is lost, the inbox asks for a scan.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyObserver

# Of a folder that watchdog finds twice while a tree is copied; the second finding does no harm.
warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)

MAX_PATHS = 10_000
JOIN_SECONDS = 5.0
# Writing itself is not listened to: a file that is written is looked at again anyway.
KINDS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]


@dataclass
class Mail:
    """What came since the last look: files (True: closed by their writer), new folders, a scan wanted.

    `closed_at` has the time of each close.
    """

    files: dict[bytes, bool] = field(default_factory=dict)
    closed_at: dict[bytes, float] = field(default_factory=dict)
    folders: set[bytes] = field(default_factory=set)
    scan: bool = False


class Inbox:
    """Collects events from another thread; `wake` is called there when the first one comes in.

    `now` is the clock of whoever takes the mail, which may be late: a close counts from when it was told.
    """

    def __init__(self, wake: Callable[[], None], now: Callable[[], float] = time.monotonic) -> None:
        self._wake = wake
        self._now = now
        self._lock = threading.Lock()
        self._mail = Mail()
        self._woken = False
        # When files were closed, for those that are renamed after that.
        self._closed: dict[bytes, float] = {}

    def file(self, path: bytes, closed: bool) -> None:
        """Take note of a file: created, moved here, or closed by its writer."""
        with self._lock:
            self._mail.files[path] = self._mail.files.get(path, False) or closed
            if closed:
                self._closed[path] = self._mail.closed_at[path] = self._now()
            else:
                self._closed.pop(path, None)
            self._bound()

    def moved(self, old: bytes, new: bytes) -> None:
        """Take note of a file that was renamed; that it was closed under its old name still counts."""
        with self._lock:
            closed_at = self._closed.pop(old, None)
            self._mail.files[new] = closed_at is not None
            if closed_at is not None:
                self._mail.closed_at[new] = closed_at
            self._bound()

    def folder(self, path: bytes) -> None:
        """Take note of a folder that appeared, whose content may have come before it was watched."""
        with self._lock:
            self._mail.folders.add(path)
            self._bound()

    def lost(self) -> None:
        """Take note that events were lost."""
        with self._lock:
            self._mail.scan = True
            self._bound()

    def take(self) -> Mail:
        """Take what came since the last call."""
        with self._lock:
            mail, self._mail, self._woken = self._mail, Mail(), False
            return mail

    def _bound(self) -> None:
        if len(self._mail.files) + len(self._mail.folders) > MAX_PATHS:
            self._mail = Mail(scan=True)
        if len(self._closed) > MAX_PATHS:
            self._closed.clear()
        if not self._woken:
            self._woken = True
            self._wake()


class FolderEvents:
    """Listens to a folder until `stop`; paths in the inbox are relative to it.

    Raises OSError when made, if the system has no more watches or instances of inotify to give.
    """

    def __init__(self, folder: bytes, recursive: bool, inbox: Inbox) -> None:
        # inotify would watch a link itself and not the folder it leads to
        real = os.path.realpath(folder)
        self._inbox = inbox
        self._losses = _Losses(inbox)
        self._observer = InotifyObserver()
        handler = _Handler(real, inbox)
        self._observer.schedule(handler, os.fsdecode(real), recursive=recursive, event_filter=KINDS)
        logging.getLogger("watchdog").addHandler(self._losses)
        try:
            self._observer.start()
        except BaseException:
            logging.getLogger("watchdog").removeHandler(self._losses)
            self._observer.unschedule_all()
            raise

    def alive(self) -> bool:
        """Whether the threads still run; they end when something unforeseen happens to them."""
        emitters = self._observer.emitters
        return self._observer.is_alive() and bool(emitters) and all(one.is_alive() for one in emitters)

    def stop(self) -> None:
        """End the threads; blocks for a moment."""
        logging.getLogger("watchdog").removeHandler(self._losses)
        self._observer.stop()
        self._observer.join(JOIN_SECONDS)


class _Handler(FileSystemEventHandler):
    """Turns events into mail."""

    def __init__(self, folder: bytes, inbox: Inbox) -> None:
        self._prefix = folder + b"/"
        self._inbox = inbox

    def dispatch(self, event: FileSystemEvent) -> None:
        moved = isinstance(event, FileMovedEvent | DirMovedEvent)
        path = self._relative(event.dest_path if moved else event.src_path)
        if not path:
            return
        if event.is_directory:
            self._inbox.folder(path)
        elif moved:
            self._inbox.moved(self._relative(event.src_path), path)
        else:
            self._inbox.file(path, isinstance(event, FileClosedEvent))

    def _relative(self, path: bytes | str) -> bytes:
        """Return the path below the folder, empty for others."""
        raw = os.fsencode(path)
        return raw[len(self._prefix) :] if raw.startswith(self._prefix) else b""


class _Losses(logging.Handler):
    """Asks for a scan when watchdog warns: that is how it tells of an overflow or a failed watch."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(logging.WARNING)
        self._inbox = inbox

    def emit(self, record: logging.LogRecord) -> None:
        self._inbox.lost()
