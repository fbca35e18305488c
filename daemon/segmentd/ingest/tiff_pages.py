"""From the pages of a TIFF, as they are decoded, to planes: types, colours without alpha, joined channels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import tifffile

from segmentd.errors import Reason
from segmentd.ingest.tiff_layout import AnyArray, SeriesLayout
from segmentd.ingest.verdict import BadStructureError
from segmentd.records import PixelType

PIXEL_TYPES = {
    "bool": PixelType.UINT8,
    "uint8": PixelType.UINT8,
    "int8": PixelType.INT16,
    "uint16": PixelType.UINT16,
    "int16": PixelType.INT16,
    "uint32": PixelType.UINT32,
    "float16": PixelType.FLOAT32,
    "float32": PixelType.FLOAT32,
    "float64": PixelType.FLOAT32,
}
ALPHA = (1, 2)


def colour_samples(page: tifffile.TiffPage, layout: SeriesLayout) -> list[int] | None:
    """Which samples of a pixel are colours; None where all are."""
    extra = [int(kind) for kind in page.extrasamples]
    samples = layout.in_page("S")
    first_extra = samples - len(extra)
    alpha = {first_extra + number for number, kind in enumerate(extra) if kind in ALPHA}
    colours = [sample for sample in range(samples) if sample not in alpha]
    return None if not alpha or first_extra < 1 else colours


def select_colours(layout: SeriesLayout, values: AnyArray, colours: list[int] | None) -> AnyArray:
    """Arrange one decoded page as (C, Y, X), with only the samples that are colours."""
    arranged = layout.arrange(values)
    if colours is None:
        return arranged
    channels, samples = layout.in_page("C"), layout.in_page("S")
    by_sample = arranged.reshape(channels, samples, *arranged.shape[1:])[:, colours]
    return by_sample.reshape(-1, *arranged.shape[1:])


def joined(parts: list[AnyArray], pixel_type: PixelType) -> AnyArray:
    """Join arrays (C, Y, X) of some channels each."""
    pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is masked later
        return np.ascontiguousarray(pixels, dtype=pixel_type.value)


def like_first(
    page: tifffile.TiffPage | tifffile.TiffFrame, first: tifffile.TiffPage, what: str
) -> tifffile.TiffPage:
    """Check that a page has size and type of the first one."""
    if page.shape != first.shape or page.dtype != first.dtype:
        text = f"has images of different size or type ({what}); save them as files of their own"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    return cast("tifffile.TiffPage", page)


def stored_types(page: tifffile.TiffPage) -> tuple[np.dtype[Any], PixelType]:
    """Type of the pixels as stored, and the type that they are given."""
    pixel_type = None if page.dtype is None else PIXEL_TYPES.get(page.dtype.name)
    if page.dtype is None or pixel_type is None:
        text = f"has pixels of type {page.dtype}, which is not supported; save it as 8-bit or 16-bit"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    return page.dtype, pixel_type
