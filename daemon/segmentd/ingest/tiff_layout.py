"""Where each plane of a TIFF is: from a series of pages with named axes to scenes, times, Z and channels."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from segmentd.errors import Reason
from segmentd.ingest.tiff_ome import clean
from segmentd.ingest.verdict import BadStructureError

# Axes without a meaning of their own (images, unknown, pages of a plain file) count as Z.
GROUPS = {"P": "P", "T": "T", "Z": "ZIQ", "C": "C"}
MICROMANAGER_TAG = 51123
MICROMANAGER_AXES = {"position": "P", "time": "T", "z": "Z", "channel": "C"}
MAX_PLANES = 1_000_000

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class SeriesLayout:
    """Where the planes of one series are.

    Attributes
    ----------
    pages : int array (P, T, Z, C)
        Number of the page, in the file or, if they are contiguous, from the first of the series;
        channels here are those in pages of their own.
    contiguous_at : int, optional
        Where all pages follow each other in the file without compression: the offset of page 0.
    page_axes, page_shape
        Axes and shape of the array that is decoded from one page.
    channel_names : tuple of str
        Names of the channels in pages of their own, where the pages state them.
    """

    pages: npt.NDArray[np.intp]
    contiguous_at: int | None
    page_axes: str
    page_shape: tuple[int, ...]
    channel_names: tuple[str, ...] = ()

    def in_page(self, axis: str) -> int:
        """Length of an axis within a page."""
        return math.prod(n for name, n in zip(self.page_axes, self.page_shape, strict=True) if name == axis)

    def with_rows(self, count: int) -> SeriesLayout:
        """The same layout for pages of which only `count` rows are there."""
        shape = zip(self.page_axes, self.page_shape, strict=True)
        return replace(self, page_shape=tuple(count if name == "Y" else n for name, n in shape))

    def arrange(self, values: AnyArray) -> AnyArray:
        """Bring the array of one page into the order (C, S, Y, X) of axes, with C and S in one."""
        order = sorted(range(len(self.page_axes)), key=lambda axis: "CSYX".find(self.page_axes[axis]))
        moved = values.reshape(self.page_shape).transpose(order)
        return moved.reshape(-1, self.in_page("Y"), self.in_page("X"))


def layout_of(series: tifffile.TiffPageSeries) -> SeriesLayout:
    """Find the pages of each plane of a series."""
    axes, shape = series.axes, series.shape
    split = _first_page_axis(axes, shape, math.prod(series.keyframe.shape))
    numbers, contiguous_at = _page_numbers(series, math.prod(shape[:split]))
    pages = _grid(axes[:split], shape[:split], numbers)
    return SeriesLayout(pages, contiguous_at, axes[split:], tuple(shape[split:]))


def _first_page_axis(axes: str, shape: tuple[int, ...], page_size: int) -> int:
    """Find where the axes within a page begin."""
    split, size = len(shape), 1
    while split > 0 and (size < page_size or not {"Y", "X"} <= set(axes[split:])):
        split -= 1
        size *= shape[split]
    within = zip(axes[split:], shape[split:], strict=True)
    strange = any(length > 1 and name not in "CSYX" for name, length in within)
    if size != page_size or strange or not {"Y", "X"} <= set(axes[split:]):
        text = f"stores its pixels in an order that is not supported ({axes}); save it as a plain stack"
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    return split


def _page_numbers(series: tifffile.TiffPageSeries, count: int) -> tuple[npt.NDArray[np.intp], int | None]:
    """Return the numbers of the pages of a series in its own order, and where they start if contiguous."""
    if count > MAX_PLANES:
        text = f"has {count} planes; {MAX_PLANES} are allowed: split it"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    if series.dataoffset is not None:
        return np.arange(count), series.dataoffset
    pages = [series[number] for number in range(min(count, len(series)))]
    found = [page.index for page in pages if page is not None]
    if len(found) < count:
        text = f"should have {count} planes, of which {count - len(found)} are missing; copy it again"
        raise BadStructureError(Reason.IMAGE_INCOMPLETE, text)
    if any(page is not None and page.parent is not series.keyframe.parent for page in pages):
        raise BadStructureError(Reason.IMAGE_UNSUPPORTED, "has planes in other files; save it as one file")
    return np.array(found, np.intp), None


def _grid(axes: str, shape: tuple[int, ...], numbers: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Bring page numbers into the order (P, T, Z, C)."""
    known = "".join(GROUPS.values())
    for name, length in zip(axes, shape, strict=True):
        if name not in known and length > 1:
            what = tifffile.TIFF.AXES_NAMES.get(name, name)
            text = f"has an axis '{what}' of length {length}, which is not supported; split it"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
    order, lengths = [], []
    for group in GROUPS.values():
        positions = [position for position, name in enumerate(axes) if name in group]
        order += positions
        lengths.append(math.prod(shape[position] for position in positions))
    order += [position for position, name in enumerate(axes) if name not in known]
    return numbers.reshape(shape).transpose(order).reshape(lengths)


def micromanager_layout(tiff: tifffile.TiffFile, plain: SeriesLayout) -> SeriesLayout | None:
    """Find the planes of a Micro-Manager file by what it wrote into each page; None for other files."""
    if MICROMANAGER_TAG not in tiff.pages.first.tags:
        return None
    numbers = [int(number) for number in plain.pages.flat]
    places = [micromanager_place(tiff.pages.get(number, aspage=True, cache=False)) for number in numbers]
    if not all(places):
        return None
    values = {axis: list(dict.fromkeys(place[axis] for place in places)) for axis in GROUPS}
    lengths = [len(values[axis]) for axis in GROUPS]
    indices = [tuple(values[axis].index(place[axis]) for axis in GROUPS) for place in places]
    if len(set(indices)) != math.prod(lengths):
        text = f"has {len(places)} planes of {math.prod(lengths)}: its acquisition was stopped; save it again"
        raise BadStructureError(Reason.IMAGE_INCOMPLETE, text)
    pages = np.zeros(lengths, np.intp)
    for index, number in zip(indices, numbers, strict=True):
        pages[index] = number
    return replace(plain, pages=pages, channel_names=tuple(clean(name) for name in values["C"]))


def micromanager_place(page: tifffile.TiffPage | tifffile.TiffFrame) -> dict[str, str]:
    """Read the place of one page: axis letter to value, empty for pages without one."""
    tag = page.tags.get(MICROMANAGER_TAG) if isinstance(page, tifffile.TiffPage) else None
    if tag is None:
        return {}
    metadata = tag.value if isinstance(tag.value, dict) else json.loads(tag.value)
    axes = metadata.get("Axes")
    if not isinstance(axes, dict) or not axes or not set(axes) <= set(MICROMANAGER_AXES):
        return {}
    return {letter: str(axes.get(name, "")) for name, letter in MICROMANAGER_AXES.items()}
