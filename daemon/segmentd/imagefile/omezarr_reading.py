"""Results in OME-Zarr read back: what `segmentd.imagefile.omezarr` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile.description import Description
from segmentd.imagefile.reading import check_inside
from segmentd.imagefile.zarr_metadata import read_back
from segmentd.imagefile.zarr_package import import_zarr
from segmentd.records import Region


def read_zarr_description(folder: Path) -> Description:
    """As `read_description`, of a folder."""
    return _opened(folder)[1]


def read_zarr_region(folder: Path, page: int, region: Region) -> npt.NDArray[np.generic]:
    """As `read_region`, of a folder; pages count channels first, then Z, time and scenes."""
    root, about, channels = _opened(folder)
    pages = about.scenes * about.size_t * about.size_z * channels
    if not 0 <= page < pages:
        raise _unavailable(folder, f"it has {pages} pages, not {page + 1}")
    check_inside(region, about.height, about.width)
    plane, channel = divmod(page, channels)
    rest, z = divmod(plane, about.size_z)
    scene, time = divmod(rest, about.size_t)
    place = {"t": time, "c": channel, "z": z}
    try:
        array = root["0" if about.scenes == 1 else f"{scene}/0"]
        outer = tuple(place[axis] for axis in array.metadata.dimension_names if axis in place)
        pixels = np.asarray(array[(*outer, *region.window)])
    except Exception as error:  # the decoders raise whatever their libraries report
        raise _unavailable(folder, str(error)) from error
    if pixels.shape != (region.height, region.width):
        raise _unavailable(folder, "its arrays have another shape than its metadata")
    return pixels


def _opened(folder: Path) -> tuple[Any, Description, int]:
    zarr = import_zarr()
    try:
        root = zarr.open_group(zarr.storage.LocalStore(folder, read_only=True), mode="r", zarr_format=3)
        attributes: Mapping[str, Any] = dict(root.attrs)
        return root, *read_back(attributes)
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise SegmentdError(
            Reason.RESULT_UNAVAILABLE, f"{folder} is not a result of segmentd: {error}"
        ) from error


def _unavailable(folder: Path, detail: str) -> SegmentdError:
    return SegmentdError(
        Reason.RESULT_UNAVAILABLE,
        f"the result {folder} cannot be read: {detail}. Restore it, or have the image segmented again.",
    )
