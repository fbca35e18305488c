"""Segments of a CZI file: file header, directory of sub-blocks, metadata. Reads bytes, decodes no pixels.

The layout is the one that libCZI documents: little-endian, every segment with a header of 32 bytes (name,
allocated and used size).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from segmentd.errors import Reason
from segmentd.ingest.verdict import BadStructureError, StillOpenError

FILE, DIRECTORY, SUBBLOCK, METADATA = (
    b"ZISRAWFILE",
    b"ZISRAWDIRECTORY",
    b"ZISRAWSUBBLOCK",
    b"ZISRAWMETADATA",
)
MAX_DIRECTORY_BYTES = 64 << 20
MAX_METADATA_BYTES = 64 << 20
MAX_DIMENSIONS = 40

_SEGMENT = struct.Struct("<16sqq")
_FILE = struct.Struct("<iiii16s16siqqiq")
_ENTRY = struct.Struct("<2siqiiB5xi")
_DIMENSION = struct.Struct("<4siifi")
_SUBBLOCK = struct.Struct("<iiq")
_AXES = {axis.encode().ljust(4, b"\0"): axis for axis in "XYCZTSMRIHVB"}
_DIRECTORY_HEAD, _SUBBLOCK_HEAD, _METADATA_HEAD = 128, 256, 256


@dataclass(frozen=True, slots=True)
class Header:
    """The file header: where the rest is, and whether a writer announced changes (`pending`)."""

    directory: int
    metadata: int
    pending: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One sub-block: a tile of one plane.

    Attributes
    ----------
    position : int
        Offset of its segment in the file.
    pixel_type, compression
        Codes of the format.
    start, size, stored : dict of str to int
        By dimension (X, Y, C, Z, T, S, M, ...): first index, extent, and pixels stored in X and Y.
    raw : bytes
        The entry as it is in the directory.
    """

    position: int
    pixel_type: int
    compression: int
    start: dict[str, int]
    size: dict[str, int]
    stored: dict[str, int]
    raw: bytes

    @property
    def full_resolution(self) -> bool:
        """Whether it is no level of a pyramid."""
        return self.stored["X"] == self.size["X"] and self.stored["Y"] == self.size["Y"]

    def same_pixels(self, other: Entry) -> bool:
        """Whether another entry describes pixels of the same kind and number."""
        mine = (self.pixel_type, self.compression, self.stored["X"], self.stored["Y"])
        return mine == (other.pixel_type, other.compression, other.stored["X"], other.stored["Y"])


class Segments:
    """Reads the segments of a CZI through its descriptor, and nothing outside the file's size."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size

    def header(self) -> Header:
        """Read the file header."""
        start, _ = self._segment(0, FILE, "its header")
        *_, part, directory, metadata, pending, _ = _FILE.unpack(
            self._read(start, _FILE.size, "the end of its header")
        )
        if part:
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, "is a part of a CZI; save it as a single file")
        if directory <= 0:
            raise StillOpenError("its directory has not been written yet")
        return Header(directory, metadata, bool(pending))

    def entries(self, header: Header) -> Iterator[Entry]:
        """Read the directory."""
        start, used = self._segment(header.directory, DIRECTORY, "its directory")
        head = self._read(start, _DIRECTORY_HEAD, "its directory")
        count = int.from_bytes(head[:4], "little", signed=True)
        length = used - _DIRECTORY_HEAD
        if not 0 <= count * _ENTRY.size <= length:
            raise BadStructureError(Reason.IMAGE_CORRUPT, "has a damaged directory; save it again")
        if length > MAX_DIRECTORY_BYTES:
            text = f"has a directory of {length} bytes; {MAX_DIRECTORY_BYTES} are allowed: split it"
            raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
        data = self._read(start + _DIRECTORY_HEAD, length, "the end of its directory")
        offset = 0
        for _ in range(count):
            entry = _entry(data, offset)
            offset += len(entry.raw)
            yield entry

    def subblock(self, entry: Entry) -> int:
        """Check that a sub-block is whole; return how many bytes its pixels take in the file."""
        own_length = _SUBBLOCK.size + len(entry.raw)
        head_bytes = max(_SUBBLOCK_HEAD, own_length)
        data = self._read(entry.position, _SEGMENT.size + head_bytes, "a tile")
        _, used = self._checked(data, entry.position, SUBBLOCK, "a tile")
        head = data[_SEGMENT.size :]
        metadata, attachment, stored = _SUBBLOCK.unpack_from(head)
        if min(metadata, attachment, stored) < 0 or head_bytes + metadata + stored + attachment > used:
            raise BadStructureError(Reason.IMAGE_CORRUPT, "has a tile of impossible size; save it again")
        own = head[_SUBBLOCK.size : own_length]
        if own != entry.raw and not _entry(own, 0).same_pixels(entry):
            text = "has a tile that its directory describes otherwise; save it again"
            raise BadStructureError(Reason.IMAGE_CORRUPT, text)
        return int(stored)

    def metadata(self, header: Header) -> bytes:
        """Read the XML of the metadata; empty where there is none."""
        if header.metadata <= 0:
            return b""
        start, used = self._segment(header.metadata, METADATA, "its metadata")
        length = int.from_bytes(self._read(start, 4, "its metadata"), "little", signed=True)
        if not 0 <= length <= min(used, MAX_METADATA_BYTES):
            raise BadStructureError(Reason.IMAGE_CORRUPT, "has metadata of impossible size; save it again")
        return self._read(start + _METADATA_HEAD, length, "the end of its metadata")

    def _segment(self, position: int, name: bytes, what: str) -> tuple[int, int]:
        """Return start and length of a segment's data, which must lie inside the file."""
        return self._checked(self._read(position, _SEGMENT.size, what), position, name, what)

    def _checked(self, head: bytes, position: int, name: bytes, what: str) -> tuple[int, int]:
        """Check the header of a segment that was read; return what `_segment` does."""
        found, allocated, used = _SEGMENT.unpack_from(head)
        if not any(found):
            raise StillOpenError(f"{what} has not been written yet")
        used = used or allocated
        if found.rstrip(b"\0") != name or used < 0:
            raise BadStructureError(
                Reason.IMAGE_CORRUPT, f"does not have {what} where it should be; save it again"
            )
        start = position + _SEGMENT.size
        if start + used > self._size:
            raise StillOpenError(f"{what} ends at byte {start + used}, the file at byte {self._size}")
        return start, used

    def _read(self, offset: int, length: int, what: str) -> bytes:
        if offset < 0:
            raise BadStructureError(Reason.IMAGE_CORRUPT, "refers to places before its start; save it again")
        data = b""
        if offset < self._size:  # beyond it, offsets may be more than the system takes
            data = os.pread(self._fd, length, offset)
        if len(data) < length:
            raise StillOpenError(f"{what} lies beyond the end of the file at byte {self._size}")
        return data


def _entry(data: bytes, offset: int) -> Entry:
    """Parse the directory entry at an offset."""
    try:
        schema, pixel_type, position, part, compression, _, count = _ENTRY.unpack_from(data, offset)
        if schema != b"DV" or part or not 0 < count <= MAX_DIMENSIONS:
            text = "has a directory of another kind, or parts in other files; save it as a single CZI"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        raw = data[offset : offset + _ENTRY.size + count * _DIMENSION.size]
        start, size, stored = {}, {}, {}
        for name, first, extent, _, pixels in _DIMENSION.iter_unpack(raw[_ENTRY.size :]):
            axis = _AXES.get(name) or name.rstrip(b"\0").decode("ascii", "replace")
            start[axis], size[axis], stored[axis] = first, extent, pixels or extent
    except struct.error as error:
        raise BadStructureError(Reason.IMAGE_CORRUPT, "has a damaged directory; save it again") from error
    if not {"X", "Y"} <= size.keys() or min(*size.values(), *stored.values()) < 1:
        raise BadStructureError(Reason.IMAGE_CORRUPT, "has tiles without a size; save it again")
    return Entry(position, pixel_type, compression, start, size, stored, raw)
