"""Linux's inotify, as far as it is needed here: watches on folders, and what happened in them.

The system calls are watchdog's. Its observers are not used: of an overflow they only log a line, folders made
meanwhile can stay without a watch, and no subfolder can be left out.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from watchdog.observers.inotify_c import (
    InotifyConstants,
    WatchDescriptor,
    inotify_add_watch,
    inotify_init,
    inotify_rm_watch,
)

CLOSED_AFTER_WRITING = InotifyConstants.IN_CLOSE_WRITE
MOVED_FROM = InotifyConstants.IN_MOVED_FROM
MOVED_TO = InotifyConstants.IN_MOVED_TO
CREATED = InotifyConstants.IN_CREATE
OVERFLOW = InotifyConstants.IN_Q_OVERFLOW
IGNORED = InotifyConstants.IN_IGNORED
"""The watch is gone: its folder was deleted or unmounted, or the watch removed."""
OF_A_FOLDER = InotifyConstants.IN_ISDIR
_ONLY_FOLDERS = InotifyConstants.IN_ONLYDIR
_NOT_OF_UNLINKED = InotifyConstants.IN_EXCL_UNLINK

_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 << 10


class Event(NamedTuple):
    """What happened: in which watch, what (the constants above), which rename, under which name."""

    watch: int
    mask: int
    cookie: int
    name: bytes


class Inotify:
    """One queue of events; raises OSError where the system has no more instances or watches to give."""

    def __init__(self) -> None:
        self._fd = _checked(inotify_init())
        os.set_inheritable(self._fd, False)
        os.set_blocking(self._fd, False)

    def fileno(self) -> int:
        """Return the descriptor, to wait on."""
        return self._fd

    def add(self, folder: bytes) -> int:
        """Watch a folder, without what lies deeper; the watch it has already, if any, is returned again."""
        kinds = CREATED | CLOSED_AFTER_WRITING | MOVED_FROM | MOVED_TO
        return _checked(inotify_add_watch(self._fd, folder, kinds | _ONLY_FOLDERS | _NOT_OF_UNLINKED))

    def remove(self, watch: int) -> None:
        """End a watch; one that ended by itself meanwhile is none the worse."""
        inotify_rm_watch(self._fd, WatchDescriptor(watch))

    def read(self) -> list[Event]:
        """Take what is there; an empty list if nothing is."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return []
        events, start = [], 0
        while start < len(data):
            watch, mask, cookie, length = _HEADER.unpack_from(data, start)
            start += _HEADER.size + length
            events.append(Event(watch, mask, cookie, data[start - length : start].rstrip(b"\0")))
        return events

    def close(self) -> None:
        """Give the queue and all its watches back."""
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
