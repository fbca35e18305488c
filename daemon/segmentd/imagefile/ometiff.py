"""Streaming OME-TIFF output: 256 rows after 256 rows, tiled, compressed, the same bytes for the same input.

Label images are plain grey, without a colour map: with one, some readers (OpenCV, R) hand out colours
instead of label values. The class colours are in the OME-XML.

A file begins with the directories of all its pages, their tables of tiles still empty. The tiles follow
in the order in which they are made, so that the channels of a plane can grow side by side; the tables
are filled in at the end. Large planes get smaller levels as SubIFDs of their pages (`pyramid.py`), whose
tiles are made on the way.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from segmentd.imagefile.encoding import TIFF_NAMES, tile_encoder
from segmentd.imagefile.omexml import OmeChannel, OmeImage, ome_xml
from segmentd.imagefile.pyramid import SmallerLevels, level_shapes
from segmentd.records import ClassInfo, PixelSize, PixelType

if TYPE_CHECKING:
    import tifffile

TILE = 256
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
    compression : str
        `deflate` or `zstd`.

    Examples
    --------
    >>> import io
    >>> image = OmeImage(height=2, width=3, channels=(OmeChannel("labels"),), identity="example")
    >>> with OmeTiffWriter(io.BytesIO(), image) as writer:
    ...     writer.write_plane(np.array([[1, 1, 2], [1, 2, 2]], np.uint8))
    """

    def __init__(self, file: IO[bytes], image: OmeImage, compression: str = "deflate") -> None:
        self._file = file
        self._image = image
        self._encode = tile_encoder(compression)
        self._pages_written = 0
        self._row = 0  # of the plane under way
        self._levels = [_Level(image.page_count, *shape) for shape in level_shapes(image.height, image.width)]
        self._smaller: list[SmallerLevels] = []
        directories = self._directories(compression)
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
        image.check_not_whole(self._pages_written)
        expected = (min(TILE, image.height - self._row), image.width)
        if self._row == 0:
            self._begin_plane()
        pages = range(self._pages_written, self._pages_written + len(image.channels))
        for page, smaller, rows in zip(pages, self._smaller, channels, strict=True):
            image.check_rows(rows, expected)
            self._append(0, page, rows)
            for level, part in smaller.add(rows):
                self._append(level, page, part)
        self._row += TILE
        if self._row >= image.height:
            self._row = 0
            self._pages_written += len(image.channels)

    def close(self) -> None:
        """Finish the file; a ValueError if planes are missing."""
        self._image.check_whole(self._pages_written)
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

    def _begin_plane(self) -> None:
        shapes = [level.shape[1:] for level in self._levels]
        self._smaller = [
            SmallerLevels(shapes, TILE, labels=channel.labels) for channel in self._image.channels
        ]

    def _directories(self, compression: str) -> io.BytesIO:
        """Return the beginning of the file: in memory, since the library takes many small steps."""
        import tifffile  # not at the top: the client's start-up pays for it otherwise

        image, head = self._image, io.BytesIO()
        with tifffile.TiffWriter(head, bigtiff=_needs_bigtiff(image), byteorder="<", ome=False) as tiff:
            for number, level in enumerate(self._levels):
                resolution = _resolution(image.pixel_size, 2**number)
                tiff.write(
                    repeat(b"", level.sizes.size),
                    shape=level.shape,
                    dtype=image.pixel_type.value,
                    photometric="minisblack",
                    tile=(TILE, TILE),
                    compression=TIFF_NAMES[compression],
                    description=None if number else ome_xml(image),
                    subifds=None if number else len(self._levels) - 1,
                    subfiletype=1 if number else 0,
                    resolution=resolution,
                    resolutionunit="CENTIMETER" if resolution else None,
                    metadata=None,
                    software=False,
                )
        return head

    def _append(self, number: int, page: int, rows: npt.NDArray[np.generic]) -> None:
        """Write one row of tiles of a page of a level at the end of the file."""
        encoded = [self._encode(tile) for tile in _cut(rows)]
        self._levels[number].note(page, self._end, [len(tile) for tile in encoded])
        self._file.write(b"".join(encoded))
        self._end += sum(map(len, encoded))

    def _fill_tables(self) -> None:
        for level, tables in zip(self._levels, self._tables, strict=True):
            for page, (offsets, sizes) in enumerate(tables):
                for table, values in ((offsets, level.offsets), (sizes, level.sizes)):
                    self._file.seek(table.offset)
                    self._file.write(values[page].astype(table.dtype).tobytes())


class _Level:
    """The tiles of all pages of one size: offsets and sizes in bytes (pages, rows of tiles, columns)."""

    def __init__(self, pages: int, height: int, width: int) -> None:
        self.shape = (pages, height, width)
        table = (pages, _tiles(height), _tiles(width))
        self.offsets = np.zeros(table, np.uint64)
        self.sizes = np.zeros(table, np.uint64)
        self._rows = [0] * pages  # of tiles that are written

    def note(self, page: int, start: int, sizes: Sequence[int]) -> None:
        """Note the next row of tiles of a page, which lie one after the other."""
        row = self._rows[page]
        self._rows[page] += 1
        self.sizes[page, row] = sizes
        self.offsets[page, row] = start + np.cumsum(self.sizes[page, row]) - self.sizes[page, row]


class _Table(NamedTuple):
    """Where in the file a table of a page is, and the type of its numbers."""

    offset: int
    dtype: str


def _find_tables(directories: io.BytesIO) -> list[list[list[_Table]]]:
    """Find the tables of each page of each level: the offsets of its tiles, and their sizes in bytes."""
    import tifffile

    names = ("TileOffsets", "TileByteCounts")
    directories.seek(0)
    with tifffile.TiffFile(directories) as tiff:
        pages = [page.aspage() for page in tiff.pages]
        levels = [pages, *zip(*(page.pages or () for page in pages), strict=True)]
        return [
            [[_table(page.aspage().tags[name]) for name in names] for page in of_level] for of_level in levels
        ]


def _table(tag: tifffile.TiffTag) -> _Table:
    return _Table(tag.valueoffset, f"<u{tag.valuebytecount // tag.count}")


def _resolution(size: PixelSize, factor: int) -> tuple[float, float] | None:
    """Pixels a centimetre, where both are known."""
    if not (size.x_um and size.y_um and size.x_um > 0 and size.y_um > 0):
        return None
    return 1e4 / (factor * size.x_um), 1e4 / (factor * size.y_um)


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
    shapes = level_shapes(image.height, image.width)
    tiles = image.page_count * sum(_tiles(height) * _tiles(width) for height, width in shapes)
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
