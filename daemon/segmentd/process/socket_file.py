"""The file of a Unix socket: one that a dead daemon left is taken away, a living one is left alone."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.process import holder

SOCKET_MODE = 0o660
FOLDER_MODE = 0o750
_LONGEST_PATH = 107  # of sockaddr_un, without the null at the end
_CREDENTIALS = struct.Struct("3i")  # process, user and group


def check_socket_free(path: Path) -> None:
    """Check that a socket can be made at `path`; its folder is made if it is missing.

    Raises
    ------
    SegmentdError
        LOCKED, naming the process that listens there.
    ConfigurationError
        There is something else, or others may put theirs in its place.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise _unusable(path, f"must have at most {_LONGEST_PATH} bytes")
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            path.parent.chmod(FOLDER_MODE)
        mode = path.parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise _unusable(path, "must not lie in a folder that every user may change")
        if not os.path.lexists(path):
            return
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise _unusable(path, "must not be there yet, or be a socket; there is something else")
        _refuse_living(path)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, f"cannot be made ({error.strerror})") from None


@contextmanager
def private_sockets() -> Iterator[None]:
    """Sockets bound inside never have more than `SOCKET_MODE`, not even for a moment."""
    before = os.umask(0o777 & ~SOCKET_MODE)
    try:
        yield
    finally:
        os.umask(before)


def _refuse_living(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return  # nobody listens any more
            if error.errno != errno.EAGAIN:  # it has too many waiting: it lives
                raise
            pid = None
        else:
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid = _CREDENTIALS.unpack(raw)[0] or None
    who = holder.process(pid)
    raise SegmentdError(
        Reason.LOCKED,
        f'server.unix_socket = "{path}": the socket is in use by {who}. Stop that one, or name another file.',
        field="server.unix_socket",
        **who.metadata(),
    )


def _unusable(path: Path, rule: str) -> ConfigurationError:
    return ConfigurationError([f'server.unix_socket = "{path}": {rule}'])
