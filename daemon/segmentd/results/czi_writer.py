"""Streaming CZI output: rows are gathered to tiles, which a worker process writes with pylibCZIrw.

Planes are those of the image by scene, T and Z; scenes lie beside each other. The library writes no smaller
levels, and no pixels but 8 and 16 bits without sign and float32. Names and colours of the classes are custom
attributes of the file, beside what we need to read it back.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import TILE, OmeChannel, OmeImage, PixelType, parse_color
from segmentd.imagefile.czi_reading import ATTRIBUTE
from segmentd.imagefile.omexml import clean_text, file_uuid
from segmentd.imagefile.zarr_metadata import described
from segmentd.workers import Reply, Session, wire

_CHILD = "segmentd.results.czi_child"
_PIXEL_TYPES = (PixelType.UINT8, PixelType.UINT16, PixelType.FLOAT32)
_BLOCK_BYTES = 8 << 20  # all channels together; below what the library writes as one tile
_PROBE_BYTES = 1 << 20
_END_SECONDS = 600.0


class CziWriter:
    """Write one CZI to an open file.

    The caller owns the file: it is neither closed nor synced here.

    Parameters
    ----------
    file : binary file object
        Empty, readable and writable.
    image : OmeImage
        Sizes, channels and names.
    session : Session
        The worker process; it may write several files, told apart by `kind`.
    kind : str
        What the file is.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA without pylibCZIrw; IMAGE_UNSUPPORTED where CZI has no such pixels.
    """

    def __init__(self, file: IO[bytes], image: OmeImage, session: Session, kind: str) -> None:
        if image.pixel_type not in _PIXEL_TYPES:
            raise SegmentdError(
                Reason.IMAGE_UNSUPPORTED,
                f"{image.name}: pixels of type {image.pixel_type} cannot be written as CZI; "
                'choose results_format = "ome-tiff", or leave the image out of its classes',
            )
        self._file = file
        self._image = image
        self._session = session
        self._kind = kind
        row_bytes = len(image.channels) * image.width * np.dtype(image.pixel_type.value).itemsize
        self._block = max(TILE, _BLOCK_BYTES // row_bytes // TILE * TILE)
        self._planes_written = 0
        self._row = 0  # of the plane under way
        self._top = 0  # the first row that waits
        self._waiting: list[list[npt.NDArray[np.generic]]] = [[] for _ in image.channels]
        self._call("begin", {}, [file.fileno()])

    def write_rows(self, channels: Iterable[npt.NDArray[np.generic]]) -> None:
        """Append the next rows of the plane under way; as `OmeTiffWriter.write_rows`."""
        image = self._image
        image.check_not_whole(self._planes_written * len(image.channels))
        expected = (min(TILE, image.height - self._row), image.width)
        for waiting, rows in zip(self._waiting, channels, strict=True):
            image.check_rows(rows, expected)
            waiting.append(np.array(rows))  # a copy: the rows are the caller's
        self._row += expected[0]
        if self._row - self._top == self._block or self._row == image.height:
            self._write_block()
        if self._row == image.height:
            self._row = self._top = 0
            self._planes_written += 1

    def close(self) -> None:
        """Finish the file; a ValueError if planes are missing."""
        image, size = self._image, self._image.pixel_size
        image.check_whole(self._planes_written * len(image.channels))
        ours = described(image) | {"pixel_type": image.pixel_type.value}
        classes = {f"Class{one.value}": clean_text(f"{one.name} {one.color}") for one in image.classes}
        metres = {
            f"scale_{axis}": _metres(um)
            for axis, um in zip("yxz", (size.y_um, size.x_um, size.z_um), strict=True)
        }
        arguments = {
            "metadata": {
                "document_name": clean_text(image.name),
                "custom_attributes": classes | {ATTRIBUTE: json.dumps(ours)},
                **metres,
            },
            "channel_names": [clean_text(channel.name) for channel in image.channels],
            "shown": [_shown(image, channel) for channel in image.channels],
            "identity": str(file_uuid(image)),
        }
        self._call("end", arguments, [self._file.fileno()], _END_SECONDS)

    def _write_block(self) -> None:
        """Write the rows that wait, as far as the scene reaches."""
        image, top = self._image, self._top
        rest, z = divmod(self._planes_written, image.size_z)
        scene, time = divmod(rest, image.size_t)
        height, width = image.scene_sizes[scene] if image.scene_sizes else (image.height, image.width)
        self._top = self._row
        for channel, waiting in enumerate(self._waiting):
            rows = np.concatenate(waiting)[: max(height - top, 0), :width]
            waiting.clear()
            if len(rows):
                place = {"x": scene * image.width, "y": top, "plane": {"T": time, "Z": z, "C": channel}}
                self._send(rows, place | {"scene": scene})

    def _send(self, rows: npt.NDArray[np.generic], place: dict[str, Any]) -> None:
        arrays, memory = wire.pack_arrays([rows])
        assert memory is not None  # there are rows
        try:
            self._call("write", {**place, "arrays": arrays}, [memory])
        finally:
            os.close(memory)

    def _call(
        self, function: str, args: dict[str, Any], fds: list[int], seconds: float | None = None
    ) -> Reply:
        subject = f"results of {self._image.name}"
        try:
            return self._session.call(
                f"{_CHILD}:{function}", {"kind": self._kind, **args}, fds, seconds, subject
            )
        except SegmentdError as error:
            if error.reason is Reason.RESULTS_NOT_WRITABLE:
                self._raise_what_the_disk_says(error)
            raise

    def _raise_what_the_disk_says(self, error: SegmentdError) -> None:
        """The library does not tell why it cannot write: try it ourselves, in a file that is lost anyway."""
        descriptor = self._file.fileno()
        os.pwrite(descriptor, bytes(_PROBE_BYTES), os.fstat(descriptor).st_size)
        os.fsync(descriptor)
        raise OSError(errno.EIO, error.message) from error


def _metres(length_um: float | None) -> float:
    return length_um / 1e6 if length_um is not None and length_um > 0 else 0.0


def _shown(image: OmeImage, channel: OmeChannel) -> tuple[tuple[int, int, int] | None, float]:
    """Colour and highest value to show: labels and percent use a small part of their range."""
    color = None if channel.color is None else parse_color(channel.color)
    if channel.labels and len(image.channels) == 1:
        return color, max((one.value for one in image.classes), default=255) / 255
    return color, 100 / 255 if channel.name == "confidence (%)" else 1.0
