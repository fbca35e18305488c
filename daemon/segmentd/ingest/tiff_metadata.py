"""Names of channels and sizes of pixels, as the different writers of TIFF state them."""

from __future__ import annotations

import math
import re
from typing import Any

import tifffile

from segmentd.ingest.tiff_ome import OmeImage, clean, length_um
from segmentd.records import PixelSize

INCH, CENTIMETRE = 2, 3
UM_PER_UNIT = {INCH: 25400.0, CENTIMETRE: 10000.0}
# Resolutions for screens and printers, in dots per inch: they say nothing about the specimen.
SCREEN_AND_PRINT_DPI = (1, 2.54, 72, 90, 96, 100, 150, 180, 200, 240, 300, 400, 600, 1200)
RGB_NAMES = ("Red", "Green", "Blue")

_MICRONS_PER_PIXEL = re.compile(r"\bMPP\s*=\s*([0-9.eE+-]+)")


def channel_names(count: int, stated: tuple[str | None, ...], rgb: bool) -> tuple[str, ...]:
    """Names for `count` channels: the stated ones where there is one for each, else general ones."""
    if rgb:
        return RGB_NAMES
    names = stated if len(stated) == count else (None,) * count
    return tuple(name or f"channel {number}" for number, name in enumerate(names, 1))


def imagej_channel_names(metadata: dict[str, Any], channels: int) -> tuple[str | None, ...]:
    """Labels that all slices of a channel share; in ImageJ's order the channel changes fastest."""
    labels = metadata.get("Labels")
    if not isinstance(labels, list) or not labels or len(labels) % channels:
        return ()
    shared = [set(labels[channel::channels]) for channel in range(channels)]
    return tuple(clean(str(names.pop())) if len(names) == 1 else None for names in shared)


def pixel_size(tiff: tifffile.TiffFile, page: tifffile.TiffPage, ome: OmeImage | None) -> PixelSize:
    """Size of a pixel in micrometres from OME-XML, ImageJ, the slide scanner's text or the resolution."""
    if ome is not None:
        return ome.pixel_size
    if tiff.is_imagej and tiff.imagej_metadata:
        return _imagej_pixel_size(page, tiff.imagej_metadata)
    match = _MICRONS_PER_PIXEL.search(page.description) if page.is_svs else None
    if match:
        size = length_um(match[1], "µm")
        return PixelSize(size, size)
    scale = UM_PER_UNIT.get(int(page.resolutionunit))
    if scale is None:
        return PixelSize()
    return _from_resolution(page, scale)


def _imagej_pixel_size(page: tifffile.TiffPage, metadata: dict[str, Any]) -> PixelSize:
    unit = str(metadata.get("unit", ""))
    scale = length_um(1, unit)
    if scale is None:
        return PixelSize()
    size = _from_resolution(page, scale)
    return PixelSize(size.y_um, size.x_um, length_um(metadata.get("spacing"), unit))


def _from_resolution(page: tifffile.TiffPage, unit_um: float) -> PixelSize:
    per_x, per_y = (float(value) for value in page.resolution)
    sizes = [unit_um / value if value > 0 and math.isfinite(value) else None for value in (per_y, per_x)]
    if any(size is None or _is_for_screens(size) for size in sizes):
        return PixelSize()
    return PixelSize(*sizes)


def _is_for_screens(size_um: float) -> bool:
    dpi = UM_PER_UNIT[INCH] / size_um
    return any(math.isclose(dpi, usual, rel_tol=0.005) for usual in SCREEN_AND_PRINT_DPI)
