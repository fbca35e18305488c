"""Files of a folder that belong together, each looked at for itself: opened by name, and examined once.

Names have no folders in them, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from segmentd.errors import Reason
from segmentd.ingest import confine, tiff_structure
from segmentd.ingest.memory import Memory
from segmentd.ingest.names import printable
from segmentd.ingest.ome_references import identity_in_tiff
from segmentd.ingest.tiff_ome import is_ome
from segmentd.ingest.verdict import BadStructureError, StillOpenError
from segmentd.records import FileStamp

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MEMBERS_REMEMBERED = 30_000


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

    def stamp(self, name: bytes) -> FileStamp | None:
        """Look at a file without opening it; None where nothing is. Raises as `confine.open_in`."""
        try:
            status = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise confine.NotRegularError
        return confine.make_stamp(status)


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of a file whose structure is closed: number of images, and whom its XML speaks of."""

    images: int
    uuid: str = ""
    metadata_file: bytes = b""
    metadata_uuid: str = ""


_members: Memory[FileStamp, Member] = Memory(MEMBERS_REMEMBERED)


def remembered(stamp: FileStamp) -> Member | None:
    """Return what is known of a file with this stamp, None if nothing is."""
    return _members.get(stamp)


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
    member = Member(summary.page_count)
    if is_ome(summary.description):
        identity = identity_in_tiff(summary.description)
        member = replace(
            member,
            uuid=identity.uuid,
            metadata_file=identity.metadata_file,
            metadata_uuid=identity.metadata_uuid,
        )
    return _members.keep(stamp, member)


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
