"""The minimum confidence, on results that are there already: arrays or files."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from segmentd.imagefile import (
    CLASSES_NAMESPACE,
    TILE,
    Region,
    SegmentdError,
    read_region,
    read_simple,
    write_label_image,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    import tifffile

_ROWS_AT_ONCE = 16 * TILE
_CLASS = re.compile("<M ")
_UUID = re.compile(rb'UUID="urn:uuid:[0-9a-fA-F-]+"')


@overload
def minimum_confidence(
    labels: npt.NDArray[Any], confidence: npt.NDArray[Any], threshold_percent: float
) -> npt.NDArray[Any]: ...


@overload
def minimum_confidence(
    labels: Path | str, confidence: Path | str, threshold_percent: float, out: Path | str
) -> None: ...


def minimum_confidence(
    labels: npt.NDArray[Any] | Path | str,
    confidence: npt.NDArray[Any] | Path | str,
    threshold_percent: float,
    out: Path | str | None = None,
) -> npt.NDArray[Any] | None:
    """Take the label away where the confidence is below a threshold.

    Parameters
    ----------
    labels : array (..., Y, X), or path
        Labels, or one 0/255 channel for each class; of files, a result of segmentd or a simple label image.
    confidence : array, or path
        Percent: (Y, X), or of the shape of `labels`. Both are arrays, or both are files.
    threshold_percent : float
        0 to 100. A pixel with just this confidence keeps its label.
    out : path
        Of files only: where to write. It appears when it is complete.

    Returns
    -------
    array
        Of the shape and type of `labels`, 0 where they were taken away. Nothing for files.

    Raises
    ------
    ValueError
        A threshold beyond 0 to 100, shapes that do not fit, or arrays mixed with files.
    SegmentdError
        A file cannot be read.
    """
    if not 0 <= threshold_percent <= 100:
        raise ValueError(f"a threshold of {threshold_percent} %: it must be 0 to 100")
    if isinstance(labels, np.ndarray) and isinstance(confidence, np.ndarray):
        return _kept(labels, confidence, threshold_percent)
    if isinstance(labels, np.ndarray) or isinstance(confidence, np.ndarray) or out is None:
        raise ValueError("give two arrays, or two files and `out`")
    _threshold_files(Path(labels), Path(confidence), threshold_percent, Path(out))
    return None


def _kept(
    labels: npt.NDArray[Any], confidence: npt.NDArray[Any], threshold_percent: float
) -> npt.NDArray[Any]:
    if confidence.shape not in (labels.shape, labels.shape[-2:]):
        raise ValueError(f"labels of shape {labels.shape} and confidence of {confidence.shape} do not fit")
    return np.where(confidence >= threshold_percent, labels, labels.dtype.type(0))


def _threshold_files(labels: Path, confidence: Path, threshold_percent: float, out: Path) -> None:
    import tifffile

    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    try:
        if _is_result(labels) and _is_result(confidence):
            with tifffile.TiffFile(labels, is_ome=False) as given, tifffile.TiffFile(confidence) as percent:
                _threshold_results(given, percent, threshold_percent, part)
        else:
            pixels, percents = read_simple(labels), read_simple(confidence)
            if len(pixels) > 1:
                raise ValueError(f"{labels} has {len(pixels)} channels; a simple label image has one")
            write_label_image(part, _kept(pixels[0], percents[0], threshold_percent))
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _is_result(path: Path) -> bool:
    """Whether it is laid out as segmentd writes results: pages of tiles, described by OME-XML."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return bool(tiff.is_ome) and tiff.pages.first.is_tiled
    except (OSError, tifffile.TiffFileError):
        return False  # `read_simple` says what is wrong with it


def _threshold_results(
    labels: tifffile.TiffFile, confidence: tifffile.TiffFile, threshold_percent: float, part: Path
) -> None:
    """Write the file of labels once more, all its planes and its metadata, a few rows of tiles at a time."""
    import tifffile

    first, percents = labels.pages.first, confidence.pages.first
    channels, odd = divmod(len(labels.pages), len(confidence.pages))
    if odd or first.shape != percents.shape or not channels:
        raise ValueError(
            f"{labels.filename} has {len(labels.pages)} page(s) of {first.shape}, {confidence.filename} has "
            f"{len(confidence.pages)} of {percents.shape}; they are not of one image"
        )
    description = (first.description or "").encode()
    identity = hashlib.sha256(description + b"%f" % threshold_percent).hexdigest()
    new = f'UUID="urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, identity)}"'.encode()
    with tifffile.TiffWriter(part, bigtiff=labels.is_bigtiff, byteorder="<", ome=False) as writer:
        writer.write(
            _tiles(labels, confidence, channels, threshold_percent),
            shape=(len(labels.pages), *first.shape),
            dtype=first.dtype,
            photometric="minisblack",
            tile=(TILE, TILE),
            compression="adobe_deflate",
            description=_UUID.sub(new, description),
            metadata=None,
            software=False,
        )


def _image_channels(description: str, channels: int) -> int:
    """How many channels come before those of the classes, by what the file says of its classes."""
    classes = len(_CLASS.findall(description.partition(CLASSES_NAMESPACE)[2].partition("</Value>")[0]))
    return max(0, channels - classes) if channels > 1 and classes else 0


def _tiles(
    labels: tifffile.TiffFile, confidence: tifffile.TiffFile, channels: int, threshold_percent: float
) -> Iterator[npt.NDArray[Any]]:
    """All tiles of all pages in the order of the file; channels of the image itself stay as they are."""
    height, width = labels.pages.first.shape
    in_front = _image_channels(labels.pages.first.description or "", channels)
    paths = [Path(os.fspath(file.filehandle.path)) for file in (labels, confidence)]
    for page in range(len(labels.pages)):
        for top in range(0, height, _ROWS_AT_ONCE):
            region = Region(top, 0, min(_ROWS_AT_ONCE, height - top), width)
            pages = (page, page // channels)
            rows = [read_region(path, one, region) for path, one in zip(paths, pages, strict=True)]
            kept = rows[0] if page % channels < in_front else _kept(rows[0], rows[1], threshold_percent)
            for y in range(0, region.height, TILE):
                for x in range(0, width, TILE):
                    yield kept[y : y + TILE, x : x + TILE]


__all__ = ["SegmentdError", "minimum_confidence"]
