"""File events of a folder from inotify, collected for a task of the event loop.

Events only shorten the delay until the next scan. Their own thread puts them into an inbox that cannot grow
without bound; when something is lost, the inbox asks for a scan. The results folder is left out: most of what
happens there is our own doing.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from segmentd import telemetry
from segmentd.ingest import inotify
from segmentd.ingest.inotify import Event, Inotify
from segmentd.ingest.names import is_store

MAX_PATHS = 10_000
MAX_HALF_MOVED = 1000
# What a folder in the tree may answer that was deleted, or is none of the daemon's business.
PASSED_OVER = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)

_log = telemetry.get_logger(__name__)


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

    Parameters
    ----------
    folder : bytes
        Absolute path.
    recursive : bool
        Whether to listen to subfolders, also those that are made later.
    skip : set of bytes
        Relative paths of folders to leave out.
    inbox : Inbox
        Where the mail goes.

    Attributes
    ----------
    overflows : int
        How often events were lost.

    Raises
    ------
    OSError
        The folder is not there, or the system has no more watches or instances of inotify to give.
    """

    def __init__(self, folder: bytes, recursive: bool, skip: frozenset[bytes], inbox: Inbox) -> None:
        self._folder = os.path.realpath(folder)  # a link itself would not be watched
        self._recursive = recursive
        self._skip = skip
        self._inbox = inbox
        self._paths: dict[int, bytes] = {}  # of the watches
        self._half_moved: dict[int, bytes] = {}  # old path by the cookie of the rename
        self._alive = True
        self.overflows = 0
        self._inotify = Inotify()
        self._stop_reader, self._stop_writer = os.pipe2(os.O_CLOEXEC)
        try:
            self._root = self._inotify.add(self._folder)
            self._watch(b"")
        except BaseException:
            self._close()
            raise
        self._thread = threading.Thread(target=self._run, name="file-events", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether events still come; they end with the folder, or when the system has no more watches."""
        return self._alive

    def stop(self) -> None:
        """End the thread; blocks for a moment."""
        os.write(self._stop_writer, b"x")
        self._thread.join()
        self._close()

    def _close(self) -> None:
        self._inotify.close()
        os.close(self._stop_reader)
        os.close(self._stop_writer)

    def _run(self) -> None:
        waiting = select.poll()
        waiting.register(self._inotify, select.POLLIN)
        waiting.register(self._stop_reader, select.POLLIN)
        try:
            while self._stop_reader not in (fd for fd, _ in waiting.poll()):
                for event in self._inotify.read():
                    self._take(event)
        except OSError as error:
            _log.warning("file events ended", folder=self._folder, why=error.strerror)
            self._end()

    def _end(self) -> None:
        self._alive = False
        self._inbox.lost()

    def _take(self, event: Event) -> None:
        if event.mask & inotify.OVERFLOW:
            self.overflows += 1
            _log.warning("file events were lost, looking at the whole folder", folder=self._folder)
            self._watch(b"")  # folders that were made meanwhile; first the watch, then the look
            self._inbox.lost()
        elif event.mask & inotify.IGNORED:
            self._paths.pop(event.watch, None)
            if event.watch == self._root:
                self._end()
        elif event.name and event.watch in self._paths:
            below = self._paths[event.watch]
            path = below + b"/" + event.name if below else event.name
            if is_store(below):
                self._inbox.file(below, closed=False)
            elif event.mask & inotify.OF_A_FOLDER:
                self._take_folder(event, path)
            else:
                self._take_file(event, path)

    def _take_folder(self, event: Event, path: bytes) -> None:
        if event.mask & inotify.MOVED_FROM:
            gone = [watch for watch, below in self._paths.items() if _is_within(below, path)]
            for watch in gone:
                self._inotify.remove(watch)
                del self._paths[watch]
        elif event.mask & (inotify.CREATED | inotify.MOVED_TO) and is_store(path):
            self._watch(path)
            self._inbox.file(path, closed=False)
        elif event.mask & (inotify.CREATED | inotify.MOVED_TO) and self._recursive:
            self._watch(path)
            self._inbox.folder(path)

    def _take_file(self, event: Event, path: bytes) -> None:
        if event.mask & inotify.MOVED_FROM:
            if len(self._half_moved) >= MAX_HALF_MOVED:
                self._half_moved.clear()  # they left the folder, and no second half will come
            self._half_moved[event.cookie] = path
        elif event.mask & inotify.MOVED_TO and event.cookie in self._half_moved:
            self._inbox.moved(self._half_moved.pop(event.cookie), path)
        else:
            self._inbox.file(path, closed=bool(event.mask & inotify.CLOSED_AFTER_WRITING))

    def _watch(self, start: bytes) -> None:
        """Watch a folder in the tree and what lies below it, but not what lies in images."""
        pending = [start]
        while pending:
            path = pending.pop()
            if path in self._skip:
                continue
            try:
                self._paths[self._inotify.add(os.path.join(self._folder, path))] = path  # noqa: PTH118 (bytes)
                if not is_store(path):
                    below = self._subfolders(path)
                    pending += below if self._recursive else filter(is_store, below)
            except OSError as error:
                if error.errno not in PASSED_OVER:
                    raise

    def _subfolders(self, path: bytes) -> Iterator[bytes]:
        with os.scandir(os.path.join(self._folder, path)) as entries:  # noqa: PTH118 (bytes)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield path + b"/" + entry.name if path else entry.name


def _is_within(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder + b"/")
