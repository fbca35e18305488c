"""Reads OME-TIFF sets, one image in several files, plane by plane. Runs in a worker process.

Files are opened through the folder's descriptor, checked one by one before the library sees them, and only
some are open at a time. Axes and order of planes are tifffile's, which would open files by path itself.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO, cast

import numpy as np
import tifffile

from segmentd.errors import Reason
from segmentd.ingest.descriptor_file import DescriptorFile
from segmentd.ingest.file_set import SetSummary
from segmentd.ingest.names import printable
from segmentd.ingest.ome_planes import NOWHERE, ImagePlanes, planes_in
from segmentd.ingest.set_files import Neighbours
from segmentd.ingest.set_members import checked_member, digest
from segmentd.ingest.tiff import DECODER_THREADS
from segmentd.ingest.tiff_layout import AnyArray, SeriesLayout
from segmentd.ingest.tiff_metadata import channel_names
from segmentd.ingest.tiff_pages import colour_samples, joined, like_first, select_colours, stored_types
from segmentd.ingest.tiff_rows import decoded_rows, rows_decoded_together
from segmentd.ingest.tiff_structure import RGB, YCBCR
from segmentd.ingest.verdict import MAX_DECODED_BYTES, BadStructureError
from segmentd.records import FrameInfo, PlaneIndex

OPEN_AT_ONCE = 32


class TiffSetImage:
    """An open set whose members were all found closed; `summary` is what that check learned of its leader.

    To be closed, since it keeps some members open.
    """

    def __init__(self, fds: list[int], summary: SetSummary) -> None:
        self._summary = summary
        self._names = list(summary.references.files)
        self._members = _Members(fds, summary)
        self._scenes = self._like_first(planes_in(summary.xml, summary.references, self._members.count))
        first = self._scenes[0]
        self._page = self._members.page(self._names[first.files[0, 0, 0]], int(first.pages[0, 0, 0]))
        _, self._pixel_type = stored_types(self._page)
        if not {"Y", "X"} <= set(self._page.axes) <= set("SYX"):
            text = f"stores its pixels in an order that is not supported ({self._page.axes}); save it anew"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        self._layout = SeriesLayout(first.pages[None], None, self._page.axes, self._page.shape)
        self._colours = colour_samples(self._page, self._layout)
        self.info = self._frame_info(first)

    def use(self, fds: list[int]) -> None:
        """Read through other descriptors of the same file and folder from now on."""
        self._members.use(fds)

    def close(self) -> None:
        """Close all members."""
        self._members.close()

    @property
    def row_block(self) -> int:
        """How many rows have to be decoded to get one."""
        return rows_decoded_together(self._page, contiguous=False)

    def read(self, index: PlaneIndex) -> AnyArray:
        """Decode one plane: array (C, Y, X) of the frame's pixel type."""
        parts = []
        for _, page in self._pages_of(index):
            values = page.asarray(maxworkers=DECODER_THREADS)
            parts.append(select_colours(self._layout, values, self._colours))
        return joined(parts, self._pixel_type)

    def read_rows(self, index: PlaneIndex, start: int, stop: int) -> AnyArray:
        """Decode rows start..stop-1 of one plane: array (C, rows, X) of the frame's pixel type."""
        layout = self._layout.with_rows(stop - start)
        parts = []
        for file, page in self._pages_of(index):
            values = decoded_rows(page, file.read_at, start, stop)
            parts.append(select_colours(layout, values, self._colours))
        return joined(parts, self._pixel_type)

    def digest(self) -> str:
        """SHA-256 over all files."""
        return digest(self._members.leader, self._summary.members, self._members.neighbours)

    def _pages_of(self, index: PlaneIndex) -> Iterator[tuple[DescriptorFile, tifffile.TiffPage]]:
        """The pages of all channels of a plane, each with its file, which is open until the next one."""
        scene = self._scenes[index.scene]
        for file, number in zip(
            scene.files[index.time, index.z], scene.pages[index.time, index.z], strict=True
        ):
            name = self._names[file]
            page = self._members.page(name, int(number))
            what = f"image {number} of {printable(name)}"
            yield self._members.file(name), like_first(page, self._page, what)

    def _like_first(self, images: list[ImagePlanes]) -> list[ImagePlanes]:
        """The first image and all that have its sizes and type, none of which may lack a plane."""
        if not images:
            raise BadStructureError(Reason.IMAGE_CORRUPT, "has OME-XML without an image; save it again")
        like = [image for image in images if image.like == images[0].like]
        missing = sum(int((image.files == NOWHERE).sum()) for image in like)
        if missing:
            total = sum(image.files.size for image in like)
            text = (
                f"says nothing of {missing} of its {total} planes: its acquisition was stopped; save it again"
            )
            raise BadStructureError(Reason.IMAGE_INCOMPLETE, text)
        return like

    def _frame_info(self, first: ImagePlanes) -> FrameInfo:
        layout, image = self._layout, first.image
        size_t, size_z, paged_channels = first.files.shape
        samples = layout.in_page("S") if self._colours is None else len(self._colours)
        channels = paged_channels * samples
        rgb = self._page.photometric in (RGB, YCBCR) and channels == 3
        height, width = layout.in_page("Y"), layout.in_page("X")
        if (
            math.prod((channels, height, width, np.dtype(self._pixel_type.value).itemsize))
            > MAX_DECODED_BYTES
        ):
            text = f"has planes of more than {MAX_DECODED_BYTES} bytes; split it"
            raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
        return FrameInfo(
            format=f"OME-TIFF in {1 + len(self._summary.members)} files",
            pixel_type=self._pixel_type,
            height=height,
            width=width,
            channel_names=channel_names(channels, image.channel_names, rgb),
            size_t=size_t,
            size_z=size_z,
            scenes=len(self._scenes),
            rgb=rgb,
            channel_colors=image.channel_colors if len(image.channel_colors) == channels else (),
            pixel_size=image.pixel_size,
        )


class _Members:
    """The files of a set, opened when they are needed; `fds` are those of its leader and of the folder."""

    def __init__(self, fds: list[int], summary: SetSummary) -> None:
        self._summary = summary
        self._open: OrderedDict[bytes, tuple[DescriptorFile, tifffile.TiffFile]] = OrderedDict()
        self._own: DescriptorFile | None = None
        self.use(fds)

    def use(self, fds: list[int]) -> None:
        self.leader, folder = fds
        self.neighbours = Neighbours(folder, self._summary.name)
        if self._own is not None:
            self._own.fd = self.leader

    def close(self) -> None:
        while self._open:
            self._drop()

    def page(self, name: bytes, number: int) -> tifffile.TiffPage:
        """Read what a page is like."""
        page = self._opened(name)[1].pages.get(number, aspage=True, cache=False)
        return cast("tifffile.TiffPage", page)

    def file(self, name: bytes) -> DescriptorFile:
        return self._opened(name)[0]

    def count(self, name: bytes) -> int:
        return len(self._opened(name)[1].pages)

    def _opened(self, name: bytes) -> tuple[DescriptorFile, tifffile.TiffFile]:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        if len(self._open) >= OPEN_AT_ONCE:
            self._drop()
        own = name == self._summary.references.own
        fd = self.leader if own else self.neighbours.open(name)
        try:
            if not own:
                checked_member(fd, self._summary, name)
            file = DescriptorFile(fd)
            tiff = tifffile.TiffFile(cast("IO[bytes]", file), name="image.tif", _multifile=False)
        except BaseException:
            if not own:
                os.close(fd)
            raise
        if own:
            self._own = file
        self._open[name] = file, tiff
        return self._open[name]

    def _drop(self) -> None:
        _, (file, _) = self._open.popitem(last=False)
        if file is self._own:
            self._own = None  # its descriptor is the caller's
        else:
            os.close(file.fd)
