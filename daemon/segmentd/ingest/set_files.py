"""Files of a folder that belong together, each looked at for itself: opened by name, and examined once.

Names have no folders in them, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from segmentd.errors import Reason
from segmentd.ingest import confine, tiff_structure
from segmentd.ingest.names import printable
from segmentd.ingest.ome_references import References, identity_in_tiff
from segmentd.ingest.tiff_ome import is_ome
from segmentd.ingest.verdict import BadStructureError, StillOpenError
from segmentd.records import FileStamp

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MEMBERS_REMEMBERED = 20_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The folder that a file lies in, as a descriptor, and the file's name there.

    On a `local` file system members are also asked whether somebody has them open for writing.
    """

    folder: int
    name: bytes
    local: bool = False

    def open(self, name: bytes) -> int:
        """Open a regular file of the folder; raises as `confine.open_in`."""
        fd = confine.open_in(self.folder, name)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise confine.NotRegularError
        return fd


class Memory(Generic[T]):
    """The last things learned of files, by their stamps; for any thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: OrderedDict[FileStamp, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, stamp: FileStamp) -> T | None:
        """Return what is known of a file, None if nothing is."""
        with self._lock:
            return self._known.get(stamp)

    def keep(self, stamp: FileStamp, value: T) -> T:
        """Remember something of a file; returns it."""
        with self._lock:
            self._known[stamp] = value
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        return value


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of a member whose structure is closed."""

    images: int
    identity: References


_members: Memory[Member] = Memory(MEMBERS_REMEMBERED)


def examined(fd: int) -> Member:
    """Check the structure of one member, unless that very file was found closed before.

    Raises
    ------
    StillOpenError, BadStructureError
        What is wrong with it.
    """
    stamp = confine.stamp_of(fd)
    known = _members.get(stamp)
    if known is not None:
        return known
    head = os.pread(fd, 4, 0)
    if head not in TIFF_MAGICS:
        if not any(head):
            raise StillOpenError("its first bytes have not been written yet")
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, "is no TIFF")
    summary = tiff_structure.examine(fd)
    identity = identity_in_tiff(summary.description) if is_ome(summary.description) else References()
    return _members.keep(stamp, Member(summary.page_count, identity))


@contextmanager
def opened(neighbours: Neighbours, name: bytes) -> Iterator[tuple[int, FileStamp | None]]:
    """Open a file of the folder; -1 where something else is than a file, no stamp where nothing is."""
    try:
        fd = neighbours.open(name)
    except confine.NotRegularError:
        yield -1, FileStamp(0, 0, 0, 0)
        return
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        yield -1, None
        return
    try:
        yield fd, confine.stamp_of(fd)
    finally:
        os.close(fd)


def no_file(name: bytes) -> BadStructureError:
    """Return the fault of an image that refers to something that is no file."""
    text = f"refers to {printable(name)}, which is a link, a folder or a device; put the file itself there"
    return BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
