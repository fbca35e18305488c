"""Linux's inotify, as far as it is needed here: watches on folders, and what happened in them."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

CLOSED_AFTER_WRITING = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATED = 0x100
OVERFLOW = 0x4000
IGNORED = 0x8000
"""The watch is gone: its folder was deleted or unmounted, or the watch removed."""
OF_A_FOLDER = 0x40000000
_ONLY_FOLDERS = 0x01000000
_NOT_OF_UNLINKED = 0x04000000

_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 << 10
_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """What happened: in which watch, what (the constants above), which rename, under which name."""

    watch: int
    mask: int
    cookie: int
    name: bytes


class Inotify:
    """One queue of events; raises OSError where the system has no more instances or watches to give."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def fileno(self) -> int:
        """Return the descriptor, to wait on."""
        return self._fd

    def add(self, folder: bytes) -> int:
        """Watch a folder, without what lies deeper; the watch it has already, if any, is returned again."""
        kinds = CREATED | CLOSED_AFTER_WRITING | MOVED_FROM | MOVED_TO
        return _checked(_libc.inotify_add_watch(self._fd, folder, kinds | _ONLY_FOLDERS | _NOT_OF_UNLINKED))

    def remove(self, watch: int) -> None:
        """End a watch; one that ended by itself meanwhile is none the worse."""
        _libc.inotify_rm_watch(self._fd, watch)

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
