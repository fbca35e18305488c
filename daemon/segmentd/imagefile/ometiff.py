"""Streaming OME-TIFF output: plane after plane, tiled, deflate, the same bytes for the same input.

Deflate is what every reader knows (zstd needs newer ones); level 1 costs 3 to 8 ms a megapixel.
Label images are plain grey, without a colour map: with one, some readers (OpenCV, R) hand out colours
instead of label values. The class colours are in the OME-XML.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

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
        import tifffile  # not at the top: the client's start-up pays for it otherwise

        self._image = image
        self._pages_written = 0
        self._tiff = tifffile.TiffWriter(file, bigtiff=_needs_bigtiff(image), byteorder="<", ome=False)

    def write_plane(self, pixels: npt.NDArray[np.generic]) -> None:
        """Append the next plane: (Y, X), or (C, Y, X) in a file of several channels."""
        pages = pixels[np.newaxis] if pixels.ndim == 2 else pixels
        image = self._image
        expected = (len(image.channels), image.height, image.width)
        if pages.shape != expected or pages.dtype != np.dtype(image.pixel_type.value):
            raise ValueError(
                f"a plane of this file is {expected} {image.pixel_type}, not {pages.shape} {pages.dtype}"
            )
        for page in pages:
            self._write_page(page)

    def close(self) -> None:
        """Finish the file; a ValueError if planes are missing."""
        self._tiff.close()
        if self._pages_written != self._image.page_count:
            raise ValueError(f"{self._pages_written} of {self._image.page_count} pages were written")

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; after an error without looking for missing planes."""
        if error is None:
            self.close()
        else:
            self._tiff.close()

    def _write_page(self, page: npt.NDArray[np.generic]) -> None:
        if self._pages_written == self._image.page_count:
            raise ValueError(f"the file is declared with {self._image.page_count} pages and has them all")
        size = self._image.pixel_size
        known = bool(size.x_um and size.y_um and size.x_um > 0 and size.y_um > 0)
        self._tiff.write(
            page,
            photometric="minisblack",
            tile=(TILE, TILE),
            compression="adobe_deflate",
            compressionargs={"level": _DEFLATE_LEVEL},
            description=ome_xml(self._image) if self._pages_written == 0 else None,
            resolution=(1e4 / (size.x_um or 1), 1e4 / (size.y_um or 1)) if known else None,
            resolutionunit="CENTIMETER" if known else None,
            metadata=None,
            software=False,
            maxworkers=1,  # the other cores belong to the computation
        )
        self._pages_written += 1


def _needs_bigtiff(image: OmeImage) -> bool:
    tiles = -(-image.height // TILE) * -(-image.width // TILE)
    page = tiles * TILE * TILE * np.dtype(image.pixel_type.value).itemsize
    return page * image.page_count > _CLASSIC_LIMIT


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
