"""The other files of an image in several files (an OME-TIFF set), as the daemon has them while it is open."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from segmentd.ingest import confine, structure
from segmentd.ingest.ome_reader import is_companion
from segmentd.ingest.ome_references import references_in_companion, references_in_tiff
from segmentd.ingest.set_files import TIFF_MAGICS, Neighbours
from segmentd.ingest.tiff_promise import MAX_DESCRIPTION_BYTES
from segmentd.ingest.tiff_structure import first_description
from segmentd.ingest.verdict import BadStructureError, StillOpenError
from segmentd.records import FilePart, FileStamp


class Members:
    """Files beside an open one, of which nothing but their stamps is known; to be closed.

    Attributes
    ----------
    folder : int
        The folder of all of them, open.
    own : bytes
        Name of the open file there.
    parts : tuple of FilePart
        Those that were there, by name.
    """

    def __init__(self, folder: int, own: bytes, names: Sequence[bytes]) -> None:
        self.folder = folder
        self.own = own
        self._names = names
        self.parts = self._look()

    def close(self) -> None:
        """Close the folder."""
        os.close(self.folder)

    def unchanged(self) -> bool:
        """Whether all are what they were. Raises OSError."""
        return self._look() == self.parts

    def content(self, stamp: FileStamp) -> list[int]:
        """Return two numbers that change with any of the files; `stamp` is that of the open one."""
        stamps = [(stamp, b""), *((part.stamp, part.path) for part in self.parts)]
        text = repr([(name, one.size_bytes, one.mtime_ns, one.inode, one.device) for one, name in stamps])
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
        return [sum(one.size_bytes for one, _ in stamps), number]

    def _look(self) -> tuple[FilePart, ...]:
        neighbours = Neighbours(self.folder, self.own)
        parts = []
        for name in self._names:
            with suppress(confine.NotRegularError):  # as if it were not there; whoever examines it tells
                stamp = neighbours.stamp(name)
                if stamp is not None:
                    parts.append(FilePart(name, stamp))
        return tuple(parts)


def find_members(
    fd: int, path: bytes, folder: Path | None, parts: Sequence[FilePart] | None
) -> Members | None:
    """Find the other files of an image; None if it is all in one.

    Parameters
    ----------
    fd, path, folder : int, bytes, Path or None
        The open image, and its path, below a folder if that is given.
    parts : sequence of FilePart or None
        The other files, where they are known.

    Raises
    ------
    OSError
        The folder, or a file, cannot be read.
    """
    if parts is None and stat.S_ISDIR(os.fstat(fd).st_mode):
        return None
    own = path.rpartition(b"/")[2]
    names = _names(fd, own) if parts is None else [part.path.rpartition(b"/")[2] for part in parts]
    if names is None or (parts is not None and not parts):
        return None
    if folder is None:
        parent = os.open(
            path.rpartition(b"/")[0] or (b"/" if path[:1] == b"/" else b"."), confine.FOLDER_FLAGS
        )
    else:
        parent = confine.open_parent(folder, path)
    try:
        return Members(parent, own, names)
    except BaseException:
        os.close(parent)
        raise


def leader_beside(path: Path) -> Path | None:
    """Return the file that stands for the set which a file is part of; None if it is part of none."""
    name = os.fsencode(path.name)
    try:
        fd = confine.open_file(path)
    except OSError:
        return None  # opening it as an image tells why
    try:
        if os.pread(fd, 4, 0) not in TIFF_MAGICS or references_in_tiff(first_description(fd), name) is None:
            return None
        folder = os.open(path.parent, confine.FOLDER_FLAGS)
        try:
            leader = structure.check(fd, path.name, Neighbours(folder, name)).leader
        finally:
            os.close(folder)
    except (OSError, StillOpenError, BadStructureError):
        return None
    finally:
        os.close(fd)
    return path.with_name(os.fsdecode(leader)) if leader else None


def _names(fd: int, own: bytes) -> list[bytes] | None:
    """Names of the other files that a file refers to; None if it refers to none, or cannot be read."""
    try:
        if is_companion(own):
            references = references_in_companion(os.pread(fd, MAX_DESCRIPTION_BYTES + 1, 0), own)
        else:
            description = first_description(fd) if os.pread(fd, 4, 0) in TIFF_MAGICS else b""
            found = references_in_tiff(description, own)
            if found is None:
                return None
            references = found
    except (StillOpenError, BadStructureError):
        return []  # whoever examines it tells
    if references.metadata_file:
        return []
    return sorted(name for name in references.files if name != references.own)
