"""Folders and addresses that one daemon has for itself: a second one is told who has them.

A claim on a folder of a disk is a lock (`flock`) on the folder itself. On shares, FUSE and whatever else has
no disk of its own, where locks may be missing and an open folder would keep the file system from being
unmounted, it is the name of an abstract socket. So nothing is written into a folder, which may be read-only,
and a claim goes with the process, however that ends. Other hosts do not see it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.process import holder

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREDENTIALS = struct.Struct("3i")  # process, user and group
_WAITING = 128

Identity = tuple[int, int]


@dataclass
class _Lock:
    """A folder that we have: how to give it up, and how many claims there are on it."""

    undo: ExitStack
    users: int = 1


class Claims:
    """The folders that this process has; may be used from any thread.

    Several claims of the same process on one folder do not hinder each other.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[Identity, _Lock] = {}

    def claim(self, *folders: Path, subject: str) -> Claim:
        """Make a claim on folders, not held yet; `subject` is whose they are, for messages."""
        return Claim(self, folders, subject)

    def take(self, folder: Path, subject: str) -> Identity | None:
        """Lock a folder; None where there is none to lock. Pair with `give_back`.

        Raises
        ------
        SegmentdError
            LOCKED, naming the process that has it.
        """
        identity = _identity(folder)
        if identity is None:  # missing or out of reach: whoever works in it will say so
            return None
        with self._mutex:
            if identity in self._locks:
                self._locks[identity].users += 1
                return identity
            with ExitStack() as undo:
                on_disk = os.major(identity[0]) != 0
                (_lock_folder if on_disk else _lock_name)(folder, identity, subject, undo)
                self._locks[identity] = _Lock(undo.pop_all())
            return identity

    def give_back(self, identity: Identity) -> None:
        """Undo one `take`."""
        with self._mutex:
            lock = self._locks[identity]
            lock.users -= 1
            if lock.users == 0:
                self._locks.pop(identity).undo.close()


class Claim:
    """The claim of one watch, say, on its folders. `hold` and `release` may be called again and again."""

    def __init__(self, claims: Claims, folders: Sequence[Path], subject: str) -> None:
        self._claims = claims
        self._folders = folders
        self._subject = subject
        self._held: dict[Path, Identity] = {}
        self._mutex = threading.Lock()

    def hold(self) -> None:
        """Have every folder that is there, also one that has come, or has been replaced, since.

        Raises
        ------
        SegmentdError
            LOCKED, naming the folder and the process that has it; nothing else is given up.
        """
        with self._mutex:
            for folder in self._folders:
                held = self._held.get(folder)
                if held is not None and held == _identity(folder):
                    continue
                taken = self._claims.take(folder, self._subject)
                if taken is None:
                    continue
                if held is not None:
                    self._claims.give_back(held)
                self._held[folder] = taken

    def release(self) -> None:
        """Give all folders up."""
        with self._mutex:
            for folder in list(self._held):
                self._claims.give_back(self._held.pop(folder))


def check_port_free(host: str, port: int, listen: str, key: str = "server.listen") -> None:
    """Check that nobody listens on an address, the value of `key`; port 0 is always free.

    Raises
    ------
    SegmentdError
        LOCKED, naming the process that listens there.
    ConfigurationError
        The address is not this machine's.
    """
    if port == 0:
        return
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_taken(port, listen, key) from None
        cause = error.strerror or str(error)
        rule = f"cannot be bound ({cause}); must be an address of this machine"
        raise ConfigurationError([f'{key} = "{listen}": {rule}']) from None


def port_taken(port: int, listen: str, key: str = "server.listen") -> SegmentdError:
    """The error for an address, the value of `key`, on which somebody listens already."""
    who = holder.process(holder.of_port(port))
    return SegmentdError(
        Reason.LOCKED,
        f'{key} = "{listen}": the address is in use by {who}. Stop that one, or use another port.',
        field=key,
        **who.metadata(),
    )


def _lock_folder(folder: Path, identity: Identity, subject: str, undo: ExitStack) -> None:
    try:
        descriptor = os.open(folder, _FOLDER_FLAGS)
    except OSError:  # unreadable: whoever works in it will say so
        return
    undo.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _folder_taken(folder, subject, holder.of_lock(os.fstat(descriptor))) from None


def _lock_name(folder: Path, identity: Identity, subject: str, undo: ExitStack) -> None:
    where = f"{identity[0]}:{identity[1]}:{os.path.realpath(folder)}"
    name = f"\0segmentd-folder-{hashlib.sha256(os.fsencode(where)).hexdigest()}"
    sock = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        sock.bind(name)
        sock.listen(_WAITING)  # never accepted: the kernel tells those who connect who we are
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise _folder_taken(folder, subject, _listener(name)) from None


def _listener(name: str) -> int | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(name)
        except OSError:
            return None
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid or None


def _folder_taken(folder: Path, subject: str, pid: int | None) -> SegmentdError:
    who = holder.process(pid)
    return SegmentdError(
        Reason.LOCKED,
        f"{subject}: {folder} is in use by another segmentd ({who}). Stop that one, or use another folder.",
        folder=str(folder),
        **who.metadata(),
    )


def _identity(folder: Path) -> Identity | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
