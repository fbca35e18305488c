"""Streaming OME-TIFF output: 256 rows after 256 rows, tiled, deflate, the same bytes for the same input.

Deflate is what every reader knows (zstd needs newer ones). ISA-L at level 1 costs about 1 ms a megapixel
of labels and 3 ms of confidence, half of zlib-ng's time at its level 1 for files a third smaller, and a
quarter of libdeflate's for files of the same size. The bytes may differ between kinds of processors, the
pixels never do.
Label images are plain grey, without a colour map: with one, some readers (OpenCV, R) hand out colours
instead of label values. The class colours are in the OME-XML.

A file begins with the directories of all its pages, their tables of tiles still empty. The tiles follow
in the order in which they are made, so that the channels of a plane can grow side by side; the tables
are filled in at the end.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from segmentd.imagefile.omexml import OmeChannel, OmeImage, ome_xml
from segmentd.records import ClassInfo, PixelSize, PixelType

TILE = 256
_DEFLATE_LEVEL = 1
_CLASSIC_LIMIT = 3_500_000_000  # bytes of pixels, whole tiles; leaves room for offsets below 4 GiB


class OmeTiffWriter:
    """Write one OME-TIFF file to an open binary file.

    The caller owns the file: it is neither closed, flushed nor synced here, so that the caller decides
    about temporary names and durability.

    Parameters
    ----------
    file : binary file object
        Readable, writable and seekable, at position 0.
    image : OmeImage
        Sizes, channels and names.

    Examples
    --------
    >>> import io
    >>> image = OmeImage(height=2, width=3, channels=(OmeChannel("labels"),), identity="example")
    >>> with OmeTiffWriter(io.BytesIO(), image) as writer:
    ...     writer.write_plane(np.array([[1, 1, 2], [1, 2, 2]], np.uint8))
    """

    def __init__(self, file: IO[bytes], image: OmeImage) -> None:
        self._file = file
        self._image = image
        self._pages_written = 0
        self._row = 0  # of the plane under way
        table = (image.page_count, _tiles(image.height), _tiles(image.width))
        self._offsets = np.zeros(table, np.uint64)
        self._sizes = np.zeros(table, np.uint64)
        directories = self._directories()
        self._tables = _find_tables(directories)
        self._end = file.write(directories.getvalue())

    def write_plane(self, pixels: npt.NDArray[np.generic]) -> None:
        """Append the next plane: (Y, X), or (C, Y, X) in a file of several channels."""
        pages = pixels[np.newaxis] if pixels.ndim == 2 else pixels
        image = self._image
        expected = (len(image.channels), image.height, image.width)
        if pages.shape != expected or pages.dtype != np.dtype(image.pixel_type.value):
            raise ValueError(
                f"a plane of this file is {expected} {image.pixel_type}, not {pages.shape} {pages.dtype}"
            )
        for top in range(0, image.height, TILE):
            self.write_rows(pages[:, top : top + TILE])

    def write_rows(self, channels: Iterable[npt.NDArray[np.generic]]) -> None:
        """Append the next rows of the plane under way; after its last rows the next plane begins.

        Parameters
        ----------
        channels : iterable of arrays (rows, X)
            One for each channel, taken one after the other: a generator needs memory for one only. There
            are 256 rows, at the bottom of the plane as many as are left.
        """
        image = self._image
        if self._pages_written == image.page_count:
            raise ValueError(f"the file is declared with {image.page_count} pages and has them all")
        expected = (min(TILE, image.height - self._row), image.width)
        pages = range(self._pages_written, self._pages_written + len(image.channels))
        for page, rows in zip(pages, channels, strict=True):
            if rows.shape != expected or rows.dtype != np.dtype(image.pixel_type.value):
                raise ValueError(
                    f"the next rows are {expected} {image.pixel_type}, not {rows.shape} {rows.dtype}"
                )
            self._append(page, rows)
        self._row += TILE
        if self._row >= image.height:
            self._row = 0
            self._pages_written += len(image.channels)

    def close(self) -> None:
        """Finish the file; a ValueError if planes are missing."""
        if self._pages_written != self._image.page_count:
            raise ValueError(f"{self._pages_written} of {self._image.page_count} pages were written")
        self._fill_tables()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; after an error it stays unfinished."""
        if error is None:
            self.close()

    def _directories(self) -> io.BytesIO:
        """Return the beginning of the file: in memory, since the library takes many small steps."""
        import tifffile  # not at the top: the client's start-up pays for it otherwise

        image, size = self._image, self._image.pixel_size
        known = bool(size.x_um and size.y_um and size.x_um > 0 and size.y_um > 0)
        head = io.BytesIO()
        with tifffile.TiffWriter(head, bigtiff=_needs_bigtiff(image), byteorder="<", ome=False) as tiff:
            tiff.write(
                repeat(b"", self._sizes.size),
                shape=(image.page_count, image.height, image.width),
                dtype=image.pixel_type.value,
                photometric="minisblack",
                tile=(TILE, TILE),
                compression="adobe_deflate",
                description=ome_xml(image),
                resolution=(1e4 / (size.x_um or 1), 1e4 / (size.y_um or 1)) if known else None,
                resolutionunit="CENTIMETER" if known else None,
                metadata=None,
                software=False,
            )
        return head

    def _append(self, page: int, rows: npt.NDArray[np.generic]) -> None:
        """Write one row of tiles of a page at the end of the file."""
        from isal import isal_zlib

        encoded = [isal_zlib.compress(tile, _DEFLATE_LEVEL) for tile in _cut(rows)]
        sizes = np.array([len(tile) for tile in encoded], np.uint64)
        self._sizes[page, self._row // TILE] = sizes
        self._offsets[page, self._row // TILE] = self._end + sizes.cumsum() - sizes
        self._file.write(b"".join(encoded))
        self._end += int(sizes.sum())

    def _fill_tables(self) -> None:
        for tables, *numbers in zip(self._tables, self._offsets, self._sizes, strict=True):
            for table, values in zip(tables, numbers, strict=True):
                self._file.seek(table.offset)
                self._file.write(values.astype(table.dtype).tobytes())


class _Table(NamedTuple):
    """Where in the file a table of a page is, and the type of its numbers."""

    offset: int
    dtype: str


def _find_tables(directories: io.BytesIO) -> list[list[_Table]]:
    """Find the tables of each page: the offsets of its tiles, and their sizes in bytes."""
    import tifffile

    names = ("TileOffsets", "TileByteCounts")
    directories.seek(0)
    with tifffile.TiffFile(directories) as tiff:
        tags = [[page.aspage().tags[name] for name in names] for page in tiff.pages]
    return [
        [_Table(tag.valueoffset, f"<u{tag.valuebytecount // tag.count}") for tag in page] for page in tags
    ]


def _tiles(length: int) -> int:
    """Number of tiles that cover `length` pixels."""
    return -(-length // TILE)


def _cut(rows: npt.NDArray[np.generic]) -> Iterator[memoryview]:
    """Cut rows into whole tiles, little-endian; what lies outside the image is 0.

    A tile is good until the next one is asked for.
    """
    height, width = rows.shape
    tile = np.zeros((TILE, TILE), rows.dtype.newbyteorder("<"))
    for left in range(0, width, TILE):
        inside = min(TILE, width - left)
        tile[:height, :inside] = rows[:, left : left + inside]
        tile[:, inside:] = 0
        yield tile.data


def _needs_bigtiff(image: OmeImage) -> bool:
    tiles = _tiles(image.height) * _tiles(image.width) * image.page_count
    return tiles * TILE * TILE * np.dtype(image.pixel_type.value).itemsize > _CLASSIC_LIMIT


def write_label_image(
    path: Path,
    labels: npt.NDArray[np.generic],
    classes: Sequence[ClassInfo] = (),
    *,
    pixel_size: PixelSize | None = None,
) -> None:
    """Write labels (Y, X), uint8, to an OME-TIFF file; the file appears when it is complete."""
    _write_single(path, labels, "labels", tuple(classes), pixel_size or PixelSize())


def write_confidence_image(
    path: Path, confidence: npt.NDArray[np.generic], *, pixel_size: PixelSize | None = None
) -> None:
    """Write confidence (Y, X), uint8 in percent, to an OME-TIFF file; as `write_label_image`."""
    _write_single(path, confidence, "confidence (%)", (), pixel_size or PixelSize())


def _write_single(
    path: Path,
    pixels: npt.NDArray[np.generic],
    channel: str,
    classes: tuple[ClassInfo, ...],
    pixel_size: PixelSize,
) -> None:
    height, width = pixels.shape
    image = OmeImage(
        height=height,
        width=width,
        channels=(OmeChannel(channel),),
        identity=f"{hashlib.sha256(pixels.tobytes()).hexdigest()}/{channel}",
        pixel_type=PixelType(pixels.dtype.name),
        name=path.name,
        pixel_size=pixel_size,
        classes=classes,
    )
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb+") as file, OmeTiffWriter(file, image) as writer:
            writer.write_plane(pixels)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
