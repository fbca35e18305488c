"""Reads CZI: scenes, mosaics, times, Z and channels. Runs in a worker process; needs pylibCZIrw.

A plane is one scene, with its tiles joined and gaps as 0. Scenes of different size are given the size of the
largest: smaller ones begin at the top left, the rest is 0. Channels of different type are given the smallest
type that holds them all, with their values unchanged. Colours, stored as blue, green, red, come as red,
green, blue. Levels of a pyramid are left out. The library opens the file by way of the descriptor, so that it
can reach nothing else, and not for longer than a call, so that no idle worker keeps it open.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.czi_metadata import CziMetadata, parse_metadata
from segmentd.ingest.czi_structure import PIXELS, CziSummary
from segmentd.ingest.tiff_metadata import RGB_NAMES
from segmentd.ingest.verdict import BadStructureError
from segmentd.records import FrameInfo, PixelType, PlaneIndex

MAX_ROW_BLOCK = 1024
RGB_COLORS = ("#FF0000", "#00FF00", "#0000FF")


class CziImage:
    """A CZI whose structure was found closed; `summary` is what that check learned."""

    def __init__(self, fd: int, summary: CziSummary) -> None:
        self._fd = fd
        self._summary = summary
        self._dtype = np.result_type(*(PIXELS[code][1] for code in summary.pixel_types))
        metadata = parse_metadata(summary.metadata)
        names, colors = _channels(summary, metadata)
        sizes = tuple((place.height, place.width) for _, place in summary.scenes)
        self.info = FrameInfo(
            format="CZI",
            pixel_type=PixelType(self._dtype.name),
            height=summary.height,
            width=summary.width,
            channel_names=names,
            channel_colors=colors,
            size_t=len(summary.times),
            size_z=len(summary.zs),
            scenes=len(summary.scenes),
            scene_sizes=sizes if len(set(sizes)) > 1 else (),
            rgb=names == RGB_NAMES,
            pixel_size=metadata.pixel_size,
        )

    def use(self, fd: int) -> None:
        """Read through another descriptor of the same file from now on."""
        self._fd = fd

    @property
    def row_block(self) -> int:
        """How many rows have to be decoded to get one: those of a tile.

        Never more than a band of a large plane has: to decode a tall tile for each band again takes less
        than to hold the plane.
        """
        return min(self._summary.tile_height, self.info.height, MAX_ROW_BLOCK)

    def read(self, index: PlaneIndex) -> npt.NDArray[Any]:
        """Decode one plane: array (C, Y, X) of the frame's pixel type."""
        return self.read_rows(index, 0, self.info.height)

    def read_rows(self, index: PlaneIndex, start: int, stop: int) -> npt.NDArray[Any]:
        """Decode rows start..stop-1 of one plane: array (C, rows, X) of the frame's pixel type."""
        summary = self._summary
        scene, place = summary.scenes[index.scene]
        out = np.zeros((self.info.channel_count, stop - start, self.info.width), self._dtype)
        rows = min(stop, place.height) - start
        if rows < 1:
            return out
        roi = (place.x, place.y + start, place.width, rows)
        first = 0
        with _library().open_czi(f"/proc/self/fd/{self._fd}") as reader:
            for channel, code in zip(summary.channels, summary.pixel_types, strict=True):
                name, dtype, samples = PIXELS[code]
                where = {"T": summary.times[index.time], "Z": summary.zs[index.z], "C": channel}
                pixels = reader.read(roi=roi, plane=where, scene=scene, pixel_type=name)
                if pixels.shape != (rows, place.width, samples) or pixels.dtype != dtype:
                    text = f"holds {pixels.shape} of {pixels.dtype} where its directory says otherwise"
                    raise BadStructureError(Reason.IMAGE_CORRUPT, f"{text}; save it again")
                out[first : first + samples, :rows, : place.width] = pixels[..., ::-1].transpose(2, 0, 1)
                first += samples
        return out


def _channels(summary: CziSummary, metadata: CziMetadata) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Names and colours; a channel of colours is three."""
    names: list[str] = []
    colors: list[str | None] = []
    for number, code in enumerate(summary.pixel_types):
        stated = metadata.names[number] if len(metadata.names) == len(summary.channels) else None
        color = metadata.colors[number] if len(metadata.colors) == len(summary.channels) else None
        name = stated or f"channel {number + 1}"
        if PIXELS[code][2] == 1:
            names.append(name)
            colors.append(color)
        else:
            names += RGB_NAMES if len(summary.channels) == 1 else [f"{name} {part}" for part in RGB_NAMES]
            colors += RGB_COLORS
    return tuple(names), tuple(colors)


def _library() -> Any:
    try:
        return importlib.import_module("pylibCZIrw.czi")
    except ImportError as error:
        text = "CZI images need pylibCZIrw; install it with: pip install 'segmentd[czi]'"
        raise SegmentdError(Reason.MISSING_EXTRA, text) from error
