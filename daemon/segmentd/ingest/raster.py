"""Reads PNG and JPEG: one plane, alpha left out, palettes expanded, 16 bits kept. Runs in a worker process.

Pixels are as stored: a rotation that a camera noted is not applied.
"""

from __future__ import annotations

import os
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason
from segmentd.ingest.raster_structure import JpegSummary, PngSummary
from segmentd.ingest.tiff_metadata import channel_names
from segmentd.ingest.verdict import BadStructureError
from segmentd.records import FrameInfo, PixelType, PlaneIndex


class RasterImage:
    """A PNG or JPEG whose structure was found closed; `summary` is what that check learned."""

    def __init__(self, fd: int, summary: PngSummary | JpegSummary) -> None:
        self._fd = fd
        self._is_png = isinstance(summary, PngSummary)
        bits = summary.bits if isinstance(summary, PngSummary) else 8
        rgb = summary.channels == 3
        self.info = FrameInfo(
            format="PNG" if self._is_png else "JPEG",
            pixel_type=PixelType.UINT16 if bits == 16 else PixelType.UINT8,
            height=summary.height,
            width=summary.width,
            channel_names=channel_names(summary.channels, (), rgb),
            rgb=rgb,
        )

    def use(self, fd: int) -> None:
        """Read through another descriptor of the same file from now on."""
        self._fd = fd

    @property
    def row_block(self) -> int:
        """How many rows have to be decoded to get one: all."""
        return self.info.height

    def read_rows(self, index: PlaneIndex, start: int, stop: int) -> npt.NDArray[Any]:
        """Decode rows start..stop-1 of the plane: array (C, rows, X)."""
        return np.ascontiguousarray(self.read(index)[:, start:stop])

    def read(self, index: PlaneIndex) -> npt.NDArray[Any]:
        """Decode the plane: array (C, Y, X) of the frame's pixel type."""
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            data = file.read()
        pixels = imagecodecs.png_decode(data) if self._is_png else imagecodecs.jpeg8_decode(data)
        pixels = pixels.reshape(*pixels.shape[:2], -1)[:, :, : self.info.channel_count]
        expected = (self.info.height, self.info.width, self.info.channel_count)
        if pixels.shape != expected or pixels.dtype != self.info.pixel_type.value:
            text = f"holds {pixels.shape} of {pixels.dtype}, its header says {expected}; save it again"
            raise BadStructureError(Reason.IMAGE_CORRUPT, text)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
