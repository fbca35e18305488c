"""The directories (IFDs) of a TIFF, read with limits and without a decoder.

Nothing is allocated by a number that the file states: every read is checked against the size of the file
and against a budget for all headers together.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason
from segmentd.ingest.verdict import BadStructureError, StillOpenError

MAX_HEADER_BYTES = 64 << 20
MAX_DIRECTORIES = 100_000
MAX_TAGS = 4096
SUB_DIRECTORIES = 330
MAX_DEPTH = 4

# TIFF type number to size in bytes; types that are not here are skipped, as the specification asks.
TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
UNSIGNED = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}

Numbers = npt.NDArray[np.unsignedinteger[Any]]


class Source:
    """Reads parts of a file by descriptor, at most `MAX_HEADER_BYTES` in all."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._left = MAX_HEADER_BYTES

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Read exactly `length` bytes; `what` names them in the message if the file is too short."""
        self.require(offset, length, what)
        self._left -= length
        if self._left < 0:
            raise BadStructureError(
                Reason.IMAGE_TOO_LARGE, f"has more than {MAX_HEADER_BYTES >> 20} MiB of headers; split it"
            )
        data = os.pread(self.fd, length, offset)
        if len(data) < length:
            raise StillOpenError(f"it shrank while it was looked at, at {what}")
        return data

    def require(self, offset: int, length: int, what: str) -> None:
        """Check that a part lies inside the file."""
        if offset + length > self.size:
            raise StillOpenError(f"{what} ends at byte {offset + length}, the file at byte {self.size}")


class Tag(NamedTuple):
    """A tag's type, the size of its value, and the value: in place if it is small, else at an offset."""

    kind: int
    nbytes: int
    inline: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte order and number shapes: classic TIFF has 32-bit counts and offsets, BigTIFF 64-bit ones."""

    order: str
    endian: Literal["little", "big"]
    big: bool
    tag_count: struct.Struct
    entry: struct.Struct
    offset: struct.Struct

    @classmethod
    def of(cls, order: str, big: bool) -> Layout:
        """Make the layout of one of the four kinds of TIFF."""
        formats = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
        return cls(
            order,
            "little" if order == "<" else "big",
            big,
            *(struct.Struct(order + text) for text in formats),
        )


@dataclass(frozen=True, slots=True)
class Directory:
    """One IFD: `name` for messages, its tags, and the file to read their values from.

    `main` tells the images from their smaller copies; `start` is where it begins, and at `link` it says where
    the next one does.
    """

    name: str
    main: bool
    source: Source
    layout: Layout
    tags: dict[int, Tag] = field(default_factory=dict)
    start: int = 0
    link: int = 0

    @property
    def unfinished(self) -> bool:
        """Whether there is an entry of zeros, as where a writer has not got to it yet."""
        tag = self.tags.get(0)
        return tag is not None and tag.kind == 0

    def numbers(self, code: int) -> Numbers | None:
        """Values of a tag of unsigned integers, None where the tag is missing."""
        tag = self.tags.get(code)
        if tag is None:
            return None
        if tag.kind not in UNSIGNED:
            raise BadStructureError(
                Reason.IMAGE_CORRUPT, f"has a tag {code} of type {tag.kind} in {self.name}; save it again"
            )
        data = self._value(code, tag)
        return np.frombuffer(data, self.layout.order + UNSIGNED[tag.kind])

    def number(self, code: int, default: int) -> int:
        """First value of a tag of unsigned integers."""
        tag = self.tags.get(code)
        if tag is not None and tag.kind in UNSIGNED and tag.inline and tag.nbytes:
            return int.from_bytes(tag.inline[: TYPE_SIZES[tag.kind]], self.layout.endian)
        values = self.numbers(code)
        return default if values is None or not len(values) else int(values[0])

    def text(self, code: int, limit: int) -> bytes:
        """Bytes of a text tag; more than `limit` of them are refused."""
        tag = self.tags.get(code)
        if tag is None or tag.kind not in (1, 2, 7):
            return b""
        if tag.nbytes > limit:
            raise BadStructureError(
                Reason.IMAGE_TOO_LARGE, f"has {tag.nbytes} bytes of text in tag {code}; {limit} are allowed"
            )
        return self._value(code, tag).rstrip(b"\0")

    def _value(self, code: int, tag: Tag) -> bytes:
        if tag.nbytes <= len(tag.inline):
            return tag.inline[: tag.nbytes]
        return self.source.read(tag.offset, tag.nbytes, f"tag {code} of {self.name}")


def read_layout(source: Source) -> tuple[Layout, int]:
    """Read the header; return the layout and the offset of the first directory."""
    header = source.read(0, 8, "the header")
    order = "<" if header[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", header, 2)[0] == 42:
        return Layout.of(order, big=False), struct.unpack_from(order + "I", header, 4)[0]
    header = source.read(0, 16, "the header")
    if struct.unpack_from(order + "HH", header, 4) != (8, 0):
        raise BadStructureError(Reason.IMAGE_CORRUPT, "has a damaged BigTIFF header; copy it again")
    return Layout.of(order, big=True), struct.unpack_from(order + "Q", header, 8)[0]


def directories(source: Source, layout: Layout, first: int) -> Iterator[Directory]:
    """Walk the chain of directories and, after each one, the chains it refers to (SubIFDs)."""
    visited: set[int] = set()
    main_visited: set[int] = set()
    # A stack of chains that are still to be walked: offset, depth, name of the parent.
    pending = [(first, 0, "")]
    while pending:
        offset, depth, parent = pending.pop()
        if offset == 0:
            if not visited:
                raise StillOpenError("its header does not point to an image yet")
            continue
        if depth == 0 and offset in main_visited:
            raise BadStructureError(Reason.IMAGE_CORRUPT, "has images that follow each other in a loop")
        if depth > 0 and offset in visited:
            continue  # smaller copies are listed and often linked to each other as well
        if len(visited) >= MAX_DIRECTORIES:
            raise BadStructureError(
                Reason.IMAGE_TOO_LARGE, f"has more than {MAX_DIRECTORIES} images; split it"
            )
        name = f"image {len(main_visited)}" if depth == 0 else f"a smaller copy of {parent}"
        visited.add(offset)
        if depth == 0:
            main_visited.add(offset)
        directory, following = _read_directory(source, layout, offset, name, depth == 0)
        yield directory
        pending.append((following, depth, parent))
        if SUB_DIRECTORIES in directory.tags and depth < MAX_DEPTH:
            below = directory.numbers(SUB_DIRECTORIES)
            top = name if depth == 0 else parent
            pending.extend((int(sub), depth + 1, top) for sub in ([] if below is None else below[::-1]))


def _read_directory(
    source: Source, layout: Layout, offset: int, name: str, main: bool
) -> tuple[Directory, int]:
    size = layout.tag_count.size
    count = layout.tag_count.unpack(source.read(offset, size, f"the directory of {name}"))[0]
    if count == 0:
        raise StillOpenError(f"the directory of {name} is still empty")
    if count > MAX_TAGS:
        text = f"has {count} tags in {name}, which no program writes; save it again"
        raise BadStructureError(Reason.IMAGE_CORRUPT, text)
    entries = count * layout.entry.size
    data = source.read(offset + size, entries + layout.offset.size, f"the directory of {name}")
    if not any(data):
        raise StillOpenError(f"the directory of {name} is still empty")
    tags: dict[int, Tag] = {}
    for code, kind, number, value in layout.entry.iter_unpack(data[:entries]):
        nbytes = TYPE_SIZES.get(kind, 0) * number
        if nbytes <= len(value):
            tag = Tag(kind, nbytes, value, 0)
        else:
            tag = Tag(kind, nbytes, b"", layout.offset.unpack(value)[0])
            if tag.offset + nbytes > source.size:
                source.require(tag.offset, nbytes, f"tag {code} of {name}")
        tags.setdefault(code, tag)
    directory = Directory(name, main, source, layout, tags, offset, offset + size + entries)
    return directory, layout.offset.unpack_from(data, entries)[0]
