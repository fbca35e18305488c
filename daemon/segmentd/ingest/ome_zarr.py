"""Reads OME-Zarr, plane by plane and by region. Runs in a worker process.

The zarr library (extra `zarr`) decodes chunks and knows neither the image's path nor its unchecked metadata.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.tiff_metadata import channel_names
from segmentd.ingest.tiff_pages import PIXEL_TYPES
from segmentd.ingest.zarr_metadata import ArrayMetadata
from segmentd.ingest.zarr_structure import ZarrSummary
from segmentd.records import FrameInfo, PlaneIndex

MAX_ROW_BLOCK = 1024
THREADS = 2


class OmeZarrImage:
    """An OME-Zarr whose structure was found closed; `summary` is what that check learned."""

    def __init__(self, fd: int, summary: ZarrSummary) -> None:
        self._fd = fd
        self._summary = summary
        self._arrays: dict[int, tuple[Any, Any]] = {}
        scenes = range(len(summary.scenes))
        sizes = tuple((summary.length("y", scene), summary.length("x", scene)) for scene in scenes)
        count = summary.length("c")
        names, colors = summary.channel_names, summary.channel_colors
        self.info = FrameInfo(
            format=f"OME-Zarr {summary.version}",
            pixel_type=PIXEL_TYPES[summary.scenes[0].dtype.name],
            height=max(height for height, _ in sizes),
            width=max(width for _, width in sizes),
            channel_names=channel_names(count, names if len(names) == count else (), rgb=False),
            channel_colors=colors if len(colors) == count and any(colors) else (),
            size_t=summary.length("t"),
            size_z=summary.length("z"),
            scenes=len(sizes),
            scene_sizes=sizes if len(set(sizes)) > 1 else (),
            pixel_size=summary.pixel_size,
        )

    def use(self, fd: int) -> None:
        """Read through another descriptor of the same folder from now on."""
        self._fd = fd

    @property
    def row_block(self) -> int:
        """How many rows have to be decoded to get one: those of a chunk, and no more than a band has."""
        rows = max(array.unit[self._summary.axes.index("y")] for array in self._summary.scenes)
        return min(rows, self.info.height, MAX_ROW_BLOCK)

    def read(self, index: PlaneIndex) -> npt.NDArray[Any]:
        """Decode one plane: array (C, Y, X) of the frame's pixel type."""
        return self.read_rows(index, 0, self.info.height)

    def read_rows(self, index: PlaneIndex, start: int, stop: int) -> npt.NDArray[Any]:
        """Decode rows start..stop-1 of one plane: array (C, rows, X) of the frame's pixel type."""
        summary = self._summary
        height, width = (summary.length(axis, index.scene) for axis in "yx")
        out = np.zeros((self.info.channel_count, stop - start, self.info.width), self.info.pixel_type.value)
        rows = min(stop, height) - start
        if rows < 1:
            return out
        where = {"t": index.time, "z": index.z, "y": slice(start, start + rows), "?": 0}
        chosen = tuple(where.get(axis, slice(None)) for axis in summary.axes)
        left = "".join(axis for axis in summary.axes if axis in "cyx")
        values = np.asarray(self._array(index.scene)[chosen])
        order = [left.index(axis) for axis in "cyx" if axis in left]
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is masked later
            out[:, :rows, :width] = values.transpose(order).reshape(-1, rows, width)
        return out

    def _array(self, scene: int) -> Any:
        if scene not in self._arrays:
            self._arrays[scene] = _opened(self._fd, self._summary.scenes[scene])
        array, store = self._arrays[scene]
        store.fd = self._fd
        return array


def _opened(fd: int, metadata: ArrayMetadata) -> tuple[Any, Any]:
    """Return the library's array, and the store that it reads."""
    try:
        zarr = importlib.import_module("zarr")
    except ImportError as error:
        text = "OME-Zarr images need zarr; install it with: pip install 'segmentd[zarr]'"
        raise SegmentdError(Reason.IMAGE_NEEDS_EXTRA, text) from error
    zarr.config.set({"async.concurrency": THREADS, "threading.max_workers": THREADS})
    document = ".zarray" if metadata.version == 2 else "zarr.json"
    module = importlib.import_module("segmentd.ingest.zarr_store")
    store = module.FolderStore(fd, {f"{metadata.path}/{document}": metadata.document})
    array = zarr.open_array(store=store, path=metadata.path, mode="r", zarr_format=metadata.version)
    return array, store
