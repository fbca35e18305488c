"""Looks at the disk: which files are in a watched folder, and whether one of them is complete. Blocking."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from segmentd.errors import Reason
from segmentd.ingest import confine, structure
from segmentd.ingest.names import is_store, printable
from segmentd.ingest.set_files import Neighbours
from segmentd.ingest.verdict import StillOpenError, Structure, Verdict
from segmentd.records import Fault, FileStamp

# What a folder within the watched one may answer without the whole being out of reach.
LOCAL_TROUBLE = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


@dataclass(frozen=True, slots=True)
class Sighting:
    """A file that is there: path relative to the watched folder, and its stamp."""

    path: bytes
    stamp: FileStamp


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a file found: its stamp, its structure, and whether a writer has it open."""

    stamp: FileStamp
    structure: Structure
    is_open: bool = False


@dataclass
class Scan:
    """One walk through a watched folder, in portions.

    Parameters
    ----------
    folder : bytes
        Absolute path of the watched folder.
    wanted : callable
        Whether a relative path is an input.
    skip : set of bytes
        Relative paths of folders to leave out (that of the results).
    recursive : bool
        Whether to go into subfolders. Links are never followed.
    start : bytes
        Relative path of the subfolder to walk through, instead of the whole.
    """

    folder: bytes
    wanted: Callable[[bytes], bool]
    skip: frozenset[bytes]
    recursive: bool
    start: bytes = b""
    forbidden: list[bytes] = field(default_factory=list)
    """Subfolders that could not be read."""
    _sightings: Iterator[Sighting] | None = None

    @property
    def why_incomplete(self) -> str:
        """What could not be read; empty if all could."""
        if not self.forbidden:
            return ""
        example = printable(self.forbidden[0])
        return f"subfolders that cannot be read: {len(self.forbidden)}, for example {example}"

    def portion(self, size: int) -> list[Sighting]:
        """Return the next files, at most `size`; an empty list at the end.

        Raises
        ------
        OSError
            The folder is out of reach.
        """
        if self._sightings is None:
            self._sightings = self._walk()
        found = []
        for sighting in self._sightings:
            found.append(sighting)
            if len(found) == size:
                break
        return found

    def _walk(self) -> Iterator[Sighting]:
        pending = [self.start]
        while pending:
            below = pending.pop()
            try:
                folders, sightings = self._list(below)
            except OSError as error:
                if below == b"" or error.errno not in LOCAL_TROUBLE:
                    raise
                if error.errno != errno.ENOENT:
                    self.forbidden.append(below)
                continue
            yield from sightings
            pending.extend(folders)

    def _list(self, below: bytes) -> tuple[list[bytes], list[Sighting]]:
        """List one folder: subfolders (last one first) and files, both in the order of names."""
        folders, sightings = [], []
        with os.scandir(self.folder + b"/" + below) as entries:
            for entry in entries:
                path = below + b"/" + entry.name if below else entry.name
                if entry.is_dir(follow_symlinks=False) and not is_store(path):
                    if self.recursive and path not in self.skip and not entry.name.startswith(b"."):
                        folders.append(path)
                elif path not in self.skip and self.wanted(path):
                    stamp = _stamp_of_path(self.folder, path) if is_store(path) else _stamp(entry)
                    if stamp is not None:
                        sightings.append(Sighting(path, stamp))
        return sorted(folders, reverse=True), sorted(sightings, key=lambda sighting: sighting.path)


def _stamp(entry: os.DirEntry[bytes]) -> FileStamp | None:
    if not entry.is_file(follow_symlinks=False):
        return None
    try:
        return confine.make_stamp(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None  # it went away since it was listed


def sight(folder: bytes, paths: Iterable[bytes]) -> list[Sighting]:
    """Take the stamps of single files; those that are gone, links or no files are left out."""
    stamps = ((path, _stamp_of_path(folder, path)) for path in paths)
    return [Sighting(path, stamp) for path, stamp in stamps if stamp is not None]


def look(folder: bytes, path: bytes, local: bool = False) -> Look | None:
    """Check the structure of one file; None where there is no regular file any more.

    On a `local` file system also whether it is open for writing.
    """
    name, own = printable(path), path.rpartition(b"/")[2]
    try:
        with ExitStack() as opened:
            parent = confine.open_parent(folder, path)
            opened.callback(os.close, parent)
            fd = confine.open_in(parent, own)
            opened.callback(os.close, fd)
            before = confine.stamp_of(fd)
            found = structure.check(fd, name, Neighbours(parent, own, local))
            is_open = local and confine.is_open_for_writing(fd)
            after = confine.stamp_of(fd)
    except (FileNotFoundError, NotADirectoryError, confine.NotRegularError):
        return None
    except OSError as error:
        return _unreadable(folder, path, name, error)
    if after != before:
        found = structure.still_open(StillOpenError("it is growing"), name)
    return Look(after, found, is_open or found.being_written)


def _unreadable(folder: bytes, path: bytes, name: str, error: OSError) -> Look | None:
    stamp = _stamp_of_path(folder, path)
    if stamp is None:
        return None
    text = f"{name} cannot be read ({error.strerror}); make it readable for the account of the daemon"
    fault = Fault(Reason.IMAGE_UNREADABLE, text, {"file": name})
    return Look(stamp, Structure(Verdict.OPEN, fault))


def _stamp_of_path(folder: bytes, path: bytes) -> FileStamp | None:
    try:
        result = os.lstat(folder + b"/" + path)
    except OSError:
        return None  # gone, or out of reach: the next scan tells
    if not confine.is_image_mode(result.st_mode, path):
        return None
    return _stamp_of_store(folder, path, result) if is_store(path) else confine.make_stamp(result)


def _stamp_of_store(folder: bytes, path: bytes, result: os.stat_result) -> FileStamp | None:
    """Return the stamp of all files in a folder; that of the folder itself where it cannot be opened."""
    try:
        fd = confine.open_beneath(folder, path)
    except (FileNotFoundError, NotADirectoryError, confine.NotRegularError):
        return None
    except PermissionError:
        return confine.make_stamp(result)
    try:
        return confine.stamp_of(fd)
    finally:
        os.close(fd)
