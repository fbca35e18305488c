"""Reading single planes: any simple TIFF, PNG or JPEG whole, and parts of result files.

This is for the client and for what the daemon wrote itself. Images from a microscope go through
`segmentd.ingest`, which checks them before a decoder sees them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.records import Region

if TYPE_CHECKING:
    import tifffile

CZI_SUFFIX = ".czi"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC = b"\xff\xd8\xff"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_simple(path: Path) -> npt.NDArray[np.generic]:
    """Read a TIFF, PNG or JPEG of one plane.

    Returns
    -------
    array (C, Y, X)
        In the file's pixel type; colour images have C = 3, an alpha channel is left out.

    Raises
    ------
    SegmentdError
        IMAGE_UNREADABLE, IMAGE_UNSUPPORTED (also for a file of several planes) or IMAGE_CORRUPT.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise SegmentdError(
            Reason.IMAGE_UNREADABLE,
            f"{path} cannot be read: {error.strerror}. Check the path and its permissions.",
        ) from error
    if magic.startswith(_TIFF_MAGIC):
        decode = _read_tiff
    elif magic.startswith((_PNG_MAGIC, _JPEG_MAGIC)):
        decode = _read_raster
    else:
        raise SegmentdError(
            Reason.IMAGE_UNSUPPORTED,
            f"{path} is not a TIFF, PNG or JPEG file, whatever its name. Convert it first.",
        )
    try:
        pixels = decode(path)
    except SegmentdError:
        raise
    except Exception as error:  # the decoders raise whatever their C libraries report
        raise SegmentdError(
            Reason.IMAGE_CORRUPT, f"{path} cannot be decoded: {error}. Copy or export the file again."
        ) from error
    if pixels.size == 0:
        raise SegmentdError(Reason.IMAGE_CORRUPT, f"{path} holds no pixels. Copy or export the file again.")
    return pixels


def read_region(path: Path, page: int, region: Region) -> npt.NDArray[np.generic]:
    """Read a part of one page of a result file, decoding only the tiles that it touches.

    Parameters
    ----------
    path : Path
        A result: OME-TIFF, OME-Zarr or CZI.
    page : int
        Number of the plane in the file, from 0; in a file of C channels, plane times C plus channel.
    region : Region
        A rectangle inside the plane.

    Returns
    -------
    array (height, width)

    Raises
    ------
    SegmentdError
        RESULT_UNAVAILABLE where the file is gone or is not what was written; BAD_FIELD where the plane
        does not contain the region.
    """
    if path.suffix == CZI_SUFFIX:
        from segmentd.imagefile.czi_reading import read_czi_region

        return read_czi_region(path, page, region)
    if path.is_dir():
        from segmentd.imagefile.omezarr_reading import read_zarr_region

        return read_zarr_region(path, page, region)
    import tifffile

    try:
        with tifffile.TiffFile(path, is_ome=False) as tiff:
            if page >= len(tiff.pages):
                raise _unavailable(path, f"it has {len(tiff.pages)} pages, not {page + 1}")
            return _read_tiles(tiff, tiff.pages[page].aspage(), region)
    except (OSError, tifffile.TiffFileError, RuntimeError) as error:  # the last from the codecs
        raise _unavailable(path, str(error)) from error


def check_inside(region: Region, height: int, width: int) -> None:
    """BAD_FIELD unless a region lies in a plane of this size and is not empty."""
    bottom, right = region.y + region.height, region.x + region.width
    inside = min(region.y, region.x) >= 0 and bottom <= height and right <= width
    if not inside or min(region.height, region.width) < 1:
        raise SegmentdError(
            Reason.BAD_FIELD,
            f"the plane has {height} x {width} pixels; y {region.y}..{bottom} and "
            f"x {region.x}..{right} is no part of it",
            field="region",
        )


def _read_tiles(tiff: tifffile.TiffFile, page: tifffile.TiffPage, region: Region) -> npt.NDArray[np.generic]:
    check_inside(region, page.imagelength, page.imagewidth)
    bottom, right = region.y + region.height, region.x + region.width
    if not page.is_tiled:
        raise _unavailable(str(tiff.filehandle.path), "it is not tiled")
    result = np.zeros((region.height, region.width), page.dtype)
    across = -(-page.imagewidth // page.tilewidth)
    for row in range(region.y // page.tilelength, -(-bottom // page.tilelength)):
        for column in range(region.x // page.tilewidth, -(-right // page.tilewidth)):
            tile = _read_tile(tiff, page, row * across + column)
            _paste(result, tile, row * page.tilelength - region.y, column * page.tilewidth - region.x)
    return result


def _read_tile(tiff: tifffile.TiffFile, page: tifffile.TiffPage, index: int) -> npt.NDArray[Any]:
    tiff.filehandle.seek(page.dataoffsets[index])
    data = tiff.filehandle.read(page.databytecounts[index])
    decoded, _, _ = page.decode(data, index)
    if decoded is None:
        raise _unavailable(str(tiff.filehandle.path), f"tile {index} is empty")
    return np.asarray(decoded)[0, :, :, 0]


def _paste(target: npt.NDArray[Any], tile: npt.NDArray[Any], y: int, x: int) -> None:
    """Copy the part of `tile` that lies in `target` when its corner is put at (y, x)."""
    top, left = max(y, 0), max(x, 0)
    part = tile[top - y : target.shape[0] - y, left - x : target.shape[1] - x]
    target[top : top + part.shape[0], left : left + part.shape[1]] = part


def _unavailable(path: Path | str, detail: str) -> SegmentdError:
    return SegmentdError(
        Reason.RESULT_UNAVAILABLE,
        f"the result file {path} cannot be read: {detail}. Restore it, or have the image segmented again.",
    )


def _read_tiff(path: Path) -> npt.NDArray[np.generic]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        pixels: npt.NDArray[np.generic] = series.asarray()
        axes = series.axes
        alpha = len(series.keyframe.extrasamples)
    extra = [axis for axis, size in zip(axes, pixels.shape, strict=True) if axis not in "YXSC" and size > 1]
    if extra or len(tiff.series) > 1 or ("S" in axes and "C" in axes):
        raise SegmentdError(
            Reason.IMAGE_UNSUPPORTED,
            f"{path} holds more than one plane (axes {axes}, {len(tiff.series)} image(s)). Save one plane "
            "to a file of its own, or let the daemon read the whole file from a watched folder.",
        )
    for axis in reversed(range(len(axes))):
        if axes[axis] not in "YXSC":
            pixels = pixels.squeeze(axis)
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    if axes.endswith("S"):
        return _without_alpha(pixels, alpha)
    return pixels if "C" in axes else pixels[: pixels.shape[0] - alpha]


def _read_raster(path: Path) -> npt.NDArray[np.generic]:
    import imagecodecs

    data = path.read_bytes()
    if data.startswith(_PNG_MAGIC):
        pixels: npt.NDArray[np.generic] = imagecodecs.png_decode(data)
    else:
        pixels = imagecodecs.jpeg8_decode(data)
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    return _without_alpha(pixels, 1 if pixels.shape[-1] in (2, 4) else 0)


def _without_alpha(pixels: npt.NDArray[np.generic], alpha: int) -> npt.NDArray[np.generic]:
    """Turn (Y, X, samples) into (C, Y, X), without the last `alpha` samples."""
    return np.ascontiguousarray(np.moveaxis(pixels[..., : pixels.shape[-1] - alpha], -1, 0))
