"""Reads TXM, TXRM and XRM of X-ray microscopes (Xradia). Runs in a worker process.

Images of a file are its Z: slices of a volume, or projections. Rows are in the order of the file; some
viewers show them upside down.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import olefile

from segmentd.errors import Reason
from segmentd.ingest.descriptor_file import DescriptorFile
from segmentd.ingest.tiff_metadata import channel_names
from segmentd.ingest.tiff_ome import length_um
from segmentd.ingest.verdict import MAX_DECODED_BYTES, BadStructureError
from segmentd.records import FrameInfo, PixelSize, PixelType, PlaneIndex

IMAGES_IN_STORAGE = 100
MAX_IMAGES = 1_000_000
MAX_VALUE_BYTES = 8 << 20
# Types as stored and as given, by the number in the file.
TYPES = {
    2: ("<i1", PixelType.INT16),
    3: ("<u1", PixelType.UINT8),
    4: ("<i2", PixelType.INT16),
    5: ("<u2", PixelType.UINT16),
    7: ("<u4", PixelType.UINT32),
    10: ("<f4", PixelType.FLOAT32),
    11: ("<f8", PixelType.FLOAT32),
}
OTHER_TYPES = {6: "int32", 8: "int64", 9: "uint64"}


class TxmImage:
    """An open TXM, TXRM or XRM whose sectors were found to be there."""

    def __init__(self, fd: int) -> None:
        self._file = DescriptorFile(fd)
        self._ole = olefile.OleFileIO(io.BufferedReader(self._file))
        height, width = self._number("ImageHeight"), self._number("ImageWidth")
        kind = self._number("DataType")
        if kind not in TYPES:
            name = OTHER_TYPES.get(kind, f"kind {kind}")
            text = f"has pixels of type {name}, which is not supported; save it as 16-bit or float32"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        stored, pixel_type = TYPES[kind]
        self._dtype = np.dtype(stored)
        if min(height, width) < 1:
            raise BadStructureError(Reason.IMAGE_CORRUPT, "has no width or height; save it again")
        if height * width * self._dtype.itemsize > MAX_DECODED_BYTES:
            text = f"has images of {height} x {width} pixels, which are too large; split it"
            raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
        self._shape = (height, width)
        # A rotating specimen has no distance from one image to the next.
        rotates = len(set(self._values("Angles", "<f4").tolist())) > 1
        size = length_um(self._first("PixelSize", "<f4"), "µm")
        self.info = FrameInfo(
            format="TXRM" if rotates else "TXM",
            pixel_type=pixel_type,
            height=height,
            width=width,
            channel_names=channel_names(1, (), rgb=False),
            size_z=self._count_images(),
            pixel_size=PixelSize(size, size, None if rotates else size),
        )

    def use(self, fd: int) -> None:
        """Read through another descriptor of the same file from now on."""
        self._file.fd = fd

    @property
    def row_block(self) -> int:
        """How many rows have to be read to get one: all, an image is a stream."""
        return self.info.height

    def read_rows(self, index: PlaneIndex, start: int, stop: int) -> npt.NDArray[Any]:
        """Read rows start..stop-1 of one image: array (1, rows, X)."""
        return np.ascontiguousarray(self.read(index)[:, start:stop])

    def read(self, index: PlaneIndex) -> npt.NDArray[Any]:
        """Read one image: array (1, Y, X) of the frame's pixel type."""
        height, width = self._shape
        data = self._ole.openstream(_stream(index.z + 1)).read()
        if len(data) < height * width * self._dtype.itemsize:
            raise BadStructureError(Reason.IMAGE_INCOMPLETE, "ends before its last row; copy it again")
        pixels = np.frombuffer(data, self._dtype, height * width).reshape(1, height, width)
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is masked later
            return pixels.astype(self.info.pixel_type.value)

    def _count_images(self) -> int:
        """Count the images from the first one on; a scan that was stopped has fewer than it planned."""
        height, width = self._shape
        nbytes = height * width * self._dtype.itemsize
        taken, count = self._first("ImagesTaken", "<i4") or 0, 0
        while count < MAX_IMAGES and self._ole.exists(_stream(count + 1)):
            count += 1
            if self._ole.get_size(_stream(count)) < nbytes:
                text = f"has less than {height} x {width} pixels in image {count}; copy it again"
                raise BadStructureError(Reason.IMAGE_INCOMPLETE, text)
        if count < max(1, taken):
            text = f"has {count} of {max(1, int(taken))} images; copy it again when its writer is done"
            raise BadStructureError(Reason.IMAGE_INCOMPLETE, text)
        return count

    def _number(self, name: str) -> int:
        value = self._first(name, "<i4")
        if value is None:
            text = f"is a compound file without ImageInfo/{name}: not a TXM, TXRM or XRM image"
            raise BadStructureError(Reason.IMAGE_UNSUPPORTED, text)
        return int(value)

    def _first(self, name: str, dtype: str) -> float | None:
        values = self._values(name, dtype)
        return values[0].item() if len(values) else None

    def _values(self, name: str, dtype: str) -> npt.NDArray[Any]:
        """Values of a stream of the image's description; none where there is no such stream."""
        path = f"ImageInfo/{name}"
        if not self._ole.exists(path) or not 4 <= self._ole.get_size(path) <= MAX_VALUE_BYTES:
            return np.empty(0, dtype)
        data = self._ole.openstream(path).read()
        return np.frombuffer(data, dtype, len(data) // 4)


def _stream(number: int) -> str:
    """Name of the stream of an image, counted from 1."""
    return f"ImageData{-(-number // IMAGES_IN_STORAGE)}/Image{number}"
