"""What of a TIFF that is still being written can be read already. Runs in a worker process.

The reader for whole files reads these, too: it is shown the file as it will be, as far as that is known.

- One directory for many planes that follow each other, as ImageJ writes it: the file gets its final length.
- One directory for one plane, and more planes appended to it, as tifffile writes it: the others are read as
  if they were the first one; they are planes along Z, as they will be in the end.
- A directory for each page: the chain ends with the last page that is there. Where the description promises
  more, copies of its directory stand for what is to come.

Other files are refused (`BadStructureError`): those whose description is still missing, or whose pages are
planes in an order that nobody knows yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO, cast

import tifffile

from segmentd.errors import Reason
from segmentd.ingest.growth import Part, complete, full_grid
from segmentd.ingest.patched_file import PatchedFile
from segmentd.ingest.tiff import TiffImage
from segmentd.ingest.tiff_directory import Directory, Source, directories, read_layout
from segmentd.ingest.tiff_layout import MICROMANAGER_TAG, AnyArray, micromanager_place
from segmentd.ingest.tiff_ome import is_ome
from segmentd.ingest.tiff_promise import MAX_DESCRIPTION_BYTES, Promise, promise_of
from segmentd.ingest.tiff_structure import NONE, PageShape, TiffSummary, check_directory
from segmentd.ingest.verdict import MAX_FILE_BYTES, BadStructureError, StillOpenError
from segmentd.records import FrameInfo, PlaneIndex

DESCRIPTION = 270
SAMPLE_BYTES = 4096
MAX_PROMISED_PAGES = 20_000
LARGEST_OFFSET = (1 << 32) - 1  # of TIFF that is not BigTIFF


@dataclass
class _Pages:
    """The pages that are in the file, in order; of the last one perhaps the directory only."""

    source: Source
    big: bool = False
    directories: list[Directory] = field(default_factory=list)
    shapes: list[PageShape] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    description: bytes = b""

    @property
    def whole(self) -> int:
        """How many are inside the file."""
        return len(self.shapes)

    def summary(self, page_count: int) -> TiffSummary:
        """What the reader is told."""
        return TiffSummary(self.big, self.shapes[0], page_count, self.description)


class GrowingTiff:
    """An open TIFF that is still being written.

    Attributes
    ----------
    info : FrameInfo
        What the file holds, and will hold as far as it says.
    total : int
        Planes that it will have; 0 where it does not say.
    """

    def __init__(self, fd: int) -> None:
        pages = _find_pages(Source(fd))
        promise = _promise(pages)
        promised = promise.planes
        if promise.pixels is not None:
            promised = promise.pixels * pages.shapes[0].bits // (8 * pages.shapes[0].nbytes)
        single = pages.whole == 1 and promise.contiguous and pages.shapes[0].compression == NONE
        self._appended = False
        if single and promised > 1:
            self._file, summary = _lengthened(fd, pages, promised)
            self._parts = _contiguous_parts(fd, pages, promised)
        elif single:
            self._file, summary = _repeated(fd, pages)
            self._parts = _contiguous_parts(fd, pages, MAX_PROMISED_PAGES)
            self._appended = True
        else:
            self._file, summary = _chained(fd, pages, promised)
            self._parts = pages.parts
        self._page_bytes = pages.shapes[0].nbytes
        self._image = TiffImage(fd, summary, self._file)
        self.info: FrameInfo = self._image.info
        if self._appended:
            self.info = replace(self.info, size_z=max(1, len(self._parts)))
        self.total = self.info.plane_count if promised > 1 else 0

    def use(self, fd: int) -> None:
        """Read through another descriptor of the same file from now on."""
        self._file.fd = fd

    def complete(self) -> Iterator[tuple[int, PlaneIndex]]:
        """The planes that are complete, with their position among all."""
        done = complete(self._parts)
        for position, index in enumerate(self.info.planes()):
            pages = [index.z] if self._appended else self._image.page_numbers(index)
            if done.issuperset(pages):
                yield position, index

    def read(self, index: PlaneIndex) -> AnyArray:
        """Decode one plane: array (C, Y, X) of the frame's pixel type."""
        if not self._appended:
            return self._image.read(index)
        self._file.move = index.z * self._page_bytes
        try:
            return self._image.read(PlaneIndex())
        finally:
            self._file.move = 0


def _find_pages(source: Source) -> _Pages:
    layout, offset = read_layout(source)
    pages = _Pages(source, layout.big)
    checking = False
    try:
        for directory in directories(source, layout, offset):
            if directory.main:
                pages.directories.append(directory)
                pages.parts.append(Part.BEGUN)
            checking = True
            shape, start, end = check_directory(directory)
            checking = False
            if directory.main:
                pages.shapes.append(shape)
                pages.starts.append(start)
                pages.parts[-1] = _part(source.fd, start, end)
    except StillOpenError:
        if not pages.shapes:
            raise
        if checking:
            pages.parts[-1] = Part.BEGUN
    if not pages.shapes:
        raise StillOpenError("it has no image yet")
    pages.description = pages.directories[0].text(DESCRIPTION, MAX_DESCRIPTION_BYTES)
    return pages


def _part(fd: int, start: int, end: int) -> Part:
    """Whether anything but zeros is at the beginning, in the middle or at the end of the pixels of a page."""
    middle, last = (start + end) // 2, max(start, end - SAMPLE_BYTES)
    samples = (os.pread(fd, min(SAMPLE_BYTES, end - at), at) for at in (start, middle, last))
    return Part.WRITTEN if any(map(any, samples)) else Part.EMPTY


def _promise(pages: _Pages) -> Promise:
    """What the description says of the planes to come; refuses descriptions that say something else later."""
    description = pages.description
    promise = promise_of(description)
    unknown = DESCRIPTION in pages.directories[0].tags and not description
    if is_ome(description) or description.startswith(b"ImageJ="):
        unknown = promise.planes < max(2, pages.whole)
    elif promise.pixels is not None:  # each write of tifffile is an image of its own, unless appended
        unknown = pages.whole > 1 and promise.pixels * pages.shapes[0].bits <= 8 * pages.shapes[0].nbytes
    if unknown:
        raise BadStructureError(Reason.IMAGE_INCOMPLETE, "does not say yet what its pages are")
    return promise


def _contiguous_parts(fd: int, pages: _Pages, limit: int) -> list[Part]:
    """Parts of planes that follow each other without directories."""
    start, nbytes, size = pages.starts[0], pages.shapes[0].nbytes, pages.source.size
    parts = []
    for at in range(start, min(size, start + limit * nbytes), nbytes):
        part = _part(fd, at, min(size, at + nbytes))
        parts.append(Part.BEGUN if part is Part.WRITTEN and at + nbytes > size else part)
    return parts


def _lengthened(fd: int, pages: _Pages, planes: int) -> tuple[PatchedFile, TiffSummary]:
    """The file with all planes that it promises, and one directory."""
    size = pages.starts[0] + planes * pages.shapes[0].nbytes
    if size > MAX_FILE_BYTES:
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, f"will have {size} bytes; split it")
    return PatchedFile(fd, size, {pages.directories[0].link: _link(pages, 0)}), pages.summary(1)


def _repeated(fd: int, pages: _Pages) -> tuple[PatchedFile, TiffSummary]:
    """The file with its first plane only, which may be moved."""
    directory, start = pages.directories[0], pages.starts[0]
    if directory.link > start:
        raise BadStructureError(Reason.IMAGE_INCOMPLETE, "has its directory behind its pixels")
    size = start + pages.shapes[0].nbytes
    return PatchedFile(fd, size, {directory.link: _link(pages, 0)}, moved_from=start), pages.summary(1)


def _chained(fd: int, pages: _Pages, promised: int) -> tuple[PatchedFile, TiffSummary]:
    """The file with the pages that are there and, as copies of the last one, those that are to come."""
    count = pages.whole
    if not promised and MICROMANAGER_TAG in pages.directories[0].tags:
        count = _full_grid(fd, pages)
    missing = max(0, promised - count)
    last = pages.directories[count - 1]
    head = pages.source.read(last.start, last.link - last.start, "the last directory")
    width = len(_link(pages, 0))
    base, length = pages.source.size, len(head) + width
    base += base % 2
    if missing > MAX_PROMISED_PAGES or (not pages.big and base + missing * length > LARGEST_OFFSET):
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, f"promises {promised} pages")
    links = [base + number * length for number in range(missing)]
    following = [*links[1:], 0]
    copies = b"".join(head + _link(pages, link) for link in following[:missing])
    patches = {last.link: _link(pages, links[0] if links else 0), base: copies}
    return PatchedFile(fd, base + len(copies), patches), pages.summary(count + missing)


def _link(pages: _Pages, offset: int) -> bytes:
    return pages.directories[0].layout.offset.pack(offset)


def _full_grid(fd: int, pages: _Pages) -> int:
    """How many pages of a Micro-Manager stack make a whole grid of positions, times, Z and channels."""
    last = pages.directories[pages.whole - 1]
    file = PatchedFile(fd, pages.source.size, {last.link: _link(pages, 0)})
    with tifffile.TiffFile(cast("IO[bytes]", file), name="image.tif", _multifile=False) as tiff:
        places = [
            micromanager_place(tiff.pages.get(number, aspage=True, cache=False))
            for number in range(pages.whole)
        ]
    count = full_grid(places)
    if not count:
        raise BadStructureError(Reason.IMAGE_INCOMPLETE, "does not say what its pages are")
    return count
