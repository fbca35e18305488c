"""Reads TIFF, BigTIFF, OME-TIFF and ImageJ stacks, plane by plane. Runs in a worker process.

The file is read through a descriptor, never a path, so that the library cannot open a neighbour of it.

Axes: C and samples (RGB) are channels, C outside; alpha is no channel. T and Z are planes, and so are the
pages of a plain multi-page file (as Z). Of several series in a file the first is read; images of an OME-TIFF
that equal the first in size and type are further scenes. Of a pyramid the full resolution is read. Pixels are
as stored: no palette applied, white-is-zero not inverted, orientation not applied.
"""

from __future__ import annotations

import logging
import math
from typing import IO, cast

import numpy as np
import tifffile

from segmentd.errors import Reason
from segmentd.ingest.descriptor_file import DescriptorFile
from segmentd.ingest.tiff_layout import AnyArray, SeriesLayout, layout_of, micromanager_layout
from segmentd.ingest.tiff_metadata import channel_names, imagej_channel_names, pixel_size
from segmentd.ingest.tiff_ome import OmeImage, OmeInfo, is_ome, parse_ome
from segmentd.ingest.tiff_pages import colour_samples, joined, like_first, select_colours, stored_types
from segmentd.ingest.tiff_rows import contiguous_rows, decoded_rows, rows_decoded_together
from segmentd.ingest.tiff_structure import RGB, YCBCR, TiffSummary
from segmentd.ingest.verdict import MAX_PLANE_BYTES, BadStructureError
from segmentd.records import FrameInfo, PixelSize, PlaneIndex

DECODER_THREADS = 2

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters in its warnings is checked here


class TiffImage:
    """An open TIFF whose structure was found closed; `summary` is what that check learned.

    `file` is what to read instead of the file itself.
    """

    def __init__(self, fd: int, summary: TiffSummary, file: DescriptorFile | None = None) -> None:
        self._file = DescriptorFile(fd) if file is None else file
        ome = parse_ome(summary.description) if is_ome(summary.description) else None
        promised = 0 if ome is None else sum(image.planes for image in ome.images)
        if promised > summary.page_count:
            text = f"should have {promised} planes and has {summary.page_count}; copy it again"
            raise BadStructureError(Reason.IMAGE_INCOMPLETE, text)
        name = (ome and ome.file_name) or "image.tif"
        self._tiff = tifffile.TiffFile(cast("IO[bytes]", self._file), name=name, _multifile=False)
        series = self._choose_series(ome)
        self._page = series[0].keyframe
        self._dtype, self._pixel_type = stored_types(self._page)
        self._scenes = [layout_of(one) for one in series]
        if ome is None and not self._tiff.is_imagej and summary.page_count > 1:
            self._scenes = [micromanager_layout(self._tiff, self._scenes[0]) or self._scenes[0]]
        self._colour_samples = colour_samples(self._page, self._scenes[0])
        self.info = self._frame_info(summary, None if ome is None else _image_of(ome, series[0]))

    def use(self, fd: int) -> None:
        """Read through another descriptor of the same file from now on."""
        self._file.fd = fd

    @property
    def row_block(self) -> int:
        """How many rows have to be decoded to get one."""
        return max(
            rows_decoded_together(self._page, layout.contiguous_at is not None) for layout in self._scenes
        )

    def read(self, index: PlaneIndex) -> AnyArray:
        """Decode one plane: array (C, Y, X) of the frame's pixel type."""
        layout, numbers = self._pages_of(index)
        return self._joined([self._select(layout, self._read_page(layout, number)) for number in numbers])

    def read_rows(self, index: PlaneIndex, start: int, stop: int) -> AnyArray:
        """Decode rows start..stop-1 of one plane: array (C, rows, X) of the frame's pixel type."""
        layout, numbers = self._pages_of(index)
        rows = layout.with_rows(stop - start)
        pages = (self._read_page_rows(layout, number, start, stop) for number in numbers)
        return self._joined([self._select(rows, values) for values in pages])

    def page_numbers(self, index: PlaneIndex) -> list[int]:
        """Numbers of the pages of a plane: in the file, or from the first one on, if contiguous."""
        return self._pages_of(index)[1]

    def _pages_of(self, index: PlaneIndex) -> tuple[SeriesLayout, list[int]]:
        positions = self._scenes[0].pages.shape[0]
        layout = self._scenes[index.scene // positions]
        return layout, [int(n) for n in layout.pages[index.scene % positions, index.time, index.z]]

    def _joined(self, parts: list[AnyArray]) -> AnyArray:
        return joined(parts, self._pixel_type)

    def _choose_series(self, ome: OmeInfo | None) -> list[tifffile.TiffPageSeries]:
        series = self._tiff.series
        if not series or not series[0].shape or 0 in series[0].shape:
            raise BadStructureError(Reason.IMAGE_CORRUPT, "has no image in it; save it again")
        if ome is None:
            return series[:1]
        if series[0].kind not in ("ome", "mmstack"):
            text = "has OME-XML that does not fit its images; save it again"
            raise BadStructureError(Reason.IMAGE_CORRUPT, text)
        like = (series[0].shape, series[0].axes, series[0].dtype)
        return [one for one in series if (one.shape, one.axes, one.dtype) == like]

    def _select(self, layout: SeriesLayout, values: AnyArray) -> AnyArray:
        return select_colours(layout, values, self._colour_samples)

    def _read_page(self, layout: SeriesLayout, number: int) -> AnyArray:
        first = self._page
        if layout.contiguous_at is not None:
            values: AnyArray = np.empty(first.shape, self._dtype.newbyteorder(self._tiff.byteorder))
            self._file.seek(layout.contiguous_at + number * values.nbytes)
            if self._file.readinto(values.reshape(-1).view(np.uint8)) != values.nbytes:
                raise BadStructureError(Reason.IMAGE_INCOMPLETE, "ends before its last plane; copy it again")
            return values
        values = self._page_at(number).asarray(maxworkers=DECODER_THREADS)
        return values

    def _read_page_rows(self, layout: SeriesLayout, number: int, start: int, stop: int) -> AnyArray:
        page = self._page if layout.contiguous_at is not None else self._page_at(number)
        if layout.contiguous_at is None:
            return decoded_rows(page, self._file.read_at, start, stop)
        dtype = self._dtype.newbyteorder(self._tiff.byteorder)
        size = math.prod(page.shape) * dtype.itemsize
        offset = layout.contiguous_at + number * size
        return contiguous_rows(page, dtype, self._file.read_at, offset, start, stop)

    def _page_at(self, number: int) -> tifffile.TiffPage:
        page = self._tiff.pages.get(number, aspage=True, cache=False)
        return like_first(page, self._page, f"image {number}")

    def _frame_info(self, summary: TiffSummary, ome: OmeImage | None) -> FrameInfo:
        layout = self._scenes[0]
        positions, size_t, size_z, paged_channels = layout.pages.shape
        samples = layout.in_page("S") if self._colour_samples is None else len(self._colour_samples)
        channels = paged_channels * layout.in_page("C") * samples
        rgb = self._page.photometric in (RGB, YCBCR) and channels == 3
        height, width = layout.in_page("Y"), layout.in_page("X")
        if channels * height * width * np.dtype(self._pixel_type.value).itemsize > MAX_PLANE_BYTES:
            text = f"has planes of more than {MAX_PLANE_BYTES} bytes; split it"
            raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
        return FrameInfo(
            format=self._format(summary, ome),
            pixel_type=self._pixel_type,
            height=height,
            width=width,
            channel_names=channel_names(channels, self._stated_names(channels, ome), rgb),
            size_t=size_t,
            size_z=size_z,
            scenes=len(self._scenes) * positions,
            rgb=rgb,
            channel_colors=ome.channel_colors if ome and len(ome.channel_colors) == channels else (),
            pixel_size=pixel_size(self._tiff, self._page, ome),
        )

    def _stated_names(self, channels: int, ome: OmeImage | None) -> tuple[str | None, ...]:
        if ome is not None:
            return ome.channel_names
        if self._tiff.is_imagej:
            return imagej_channel_names(self._tiff.imagej_metadata or {}, channels)
        return self._scenes[0].channel_names

    def _format(self, summary: TiffSummary, ome: OmeImage | None) -> str:
        if ome is not None:
            return "OME-TIFF"
        if self._tiff.is_imagej:
            return "ImageJ TIFF"
        return "BigTIFF" if summary.big else "TIFF"


def _image_of(ome: OmeInfo, series: tifffile.TiffPageSeries) -> OmeImage:
    """Find the OME image that a series was made of; images without planes have no series."""
    named = [image for image in ome.images if image.name == series.name]
    return next(iter(named or ome.images), OmeImage(series.name, 0, (), PixelSize()))
