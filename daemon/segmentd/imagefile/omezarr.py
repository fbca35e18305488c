"""Streaming OME-Zarr 0.5 output: a folder of chunks in shards, the same bytes for the same input.

An image of one scene is a group with `multiscales`; scenes are such groups, named by their number, in a
group of their own. Axes of length 1 are left out, but for Y and X. Label images have `image-label` with the
colours and names of the classes. What is ours alone stands under `segmentd` in the top group.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from segmentd.imagefile.ometiff import TILE
from segmentd.imagefile.omexml import OmeImage, file_uuid
from segmentd.imagefile.pyramid import SmallerLevels, level_shapes
from segmentd.imagefile.zarr_image import ImageLayout
from segmentd.imagefile.zarr_metadata import axes_of, described, scene_attributes
from segmentd.imagefile.zarr_package import folder_store, import_zarr

if TYPE_CHECKING:
    import zarr

_SHARD_WIDTH = 16_384
_BLOCK_BYTES = 16 << 20  # of each level, all channels together
_ZSTD_LEVEL = 3
_GZIP_LEVEL = 1


class OmeZarrWriter:
    """Write one OME-Zarr image to an empty folder.

    The caller owns the folder: nothing is synced or renamed here.

    Parameters
    ----------
    folder : Path
        Where the top group goes.
    image : OmeImage
        Sizes, channels and names. Where its only channel is one of labels, it becomes a label image.
    compression : str
        `zstd` or `deflate` (gzip).
    source : str
        Path of the segmented image relative to the folder, where that is an OME-Zarr too.
    layout : ImageLayout, optional
        Of the image that has this one as labels: one of its size, and of one scene.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA without the package zarr.
    """

    def __init__(
        self,
        folder: Path,
        image: OmeImage,
        compression: str = "zstd",
        source: str = "",
        layout: ImageLayout | None = None,
    ) -> None:
        zarr = import_zarr()
        self._image = image
        self._axes = axes_of(image, layout.names if layout else "")
        self._shapes = level_shapes(image.height, image.width, layout.levels if layout else None)
        row_bytes = len(image.channels) * image.width * np.dtype(image.pixel_type.value).itemsize
        self._block = max(TILE, _BLOCK_BYTES // row_bytes // TILE * TILE)
        self._planes_written = 0
        self._row = 0  # of the plane under way
        self._waiting: list[list[npt.NDArray[np.generic]]] = []
        self._smaller: list[SmallerLevels] = []
        self._levels_row: list[list[int]] = []
        root = zarr.open_group(folder_store(folder), mode="w-", zarr_format=3)
        ours = {"segmentd": described(image) | {"uuid": str(file_uuid(image))}}
        if image.scenes == 1:
            groups = [root]
        else:
            names = [str(scene) for scene in range(image.scenes)]
            root.attrs.update({"ome": {"version": "0.5", "bioformats2raw.layout": 3}})
            root.create_group("OME", attributes={"ome": {"version": "0.5", "series": names}})
            groups = [root.create_group(name) for name in names]
        for group in groups:
            group.attrs.update(scene_attributes(image, len(self._shapes), source, layout))
        root.attrs.update(ours)
        self._scenes = [
            [self._array(group, str(level), shape, compression) for level, shape in enumerate(self._shapes)]
            for group in groups
        ]

    def write_rows(self, channels: Iterable[npt.NDArray[np.generic]]) -> None:
        """Append the next rows of the plane under way; as `OmeTiffWriter.write_rows`."""
        image = self._image
        image.check_not_whole(self._planes_written * len(image.channels))
        if self._row == 0:
            self._begin_plane()
        expected = (min(TILE, image.height - self._row), image.width)
        for number, rows in zip(range(len(image.channels)), channels, strict=True):
            image.check_rows(rows, expected)
            self._add(number, np.array(rows))  # a copy: the rows are the caller's
        self._row += TILE
        if self._row >= image.height:
            self._row = 0
            self._planes_written += 1

    def close(self) -> None:
        """Check that the image is whole; a ValueError if planes are missing."""
        self._image.check_whole(self._planes_written * len(self._image.channels))

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Check the image, unless there was an error."""
        if error is None:
            self.close()

    def _array(
        self, group: zarr.Group, name: str, shape: tuple[int, int], compression: str
    ) -> zarr.Array[Any]:
        from zarr.codecs import GzipCodec, ZstdCodec

        axes = self._axes
        chunk = [min(TILE, length) for length in shape]
        shard = [
            min(-(-length // edge) * edge, most)
            for length, edge, most in zip(shape, chunk, (self._block, _SHARD_WIDTH), strict=True)
        ]
        outer = tuple(length for axis, length in axes.items() if axis not in "yx")
        ones = (1,) * len(outer)
        return group.create_array(
            name,
            shape=(*outer, *shape),
            chunks=(*ones, *chunk),
            shards=None if shard == chunk else (*ones, *shard),
            dtype=self._image.pixel_type.value,
            compressors=GzipCodec(level=_GZIP_LEVEL)
            if compression == "deflate"
            else ZstdCodec(level=_ZSTD_LEVEL),
            fill_value=0,
            dimension_names=tuple(axes),
        )

    def _begin_plane(self) -> None:
        channels = self._image.channels
        self._waiting = [[] for _ in channels]
        self._smaller = [SmallerLevels(self._shapes, self._block, labels=one.labels) for one in channels]
        self._levels_row = [[0] * len(self._shapes) for _ in channels]

    def _add(self, channel: int, rows: npt.NDArray[np.generic]) -> None:
        """Collect rows; as soon as they fill shards, they are written, and what becomes of them."""
        waiting = self._waiting[channel]
        waiting.append(rows)
        height = sum(map(len, waiting))
        if height == self._block or self._levels_row[channel][0] + height == self._image.height:
            whole = np.concatenate(waiting)
            waiting.clear()
            self._write(channel, 0, whole)
            for level, part in self._smaller[channel].add(whole):
                self._write(channel, level, part)

    def _write(self, channel: int, level: int, rows: npt.NDArray[np.generic]) -> None:
        image, top = self._image, self._levels_row[channel][level]
        self._levels_row[channel][level] += len(rows)
        rest, z = divmod(self._planes_written, image.size_z)
        scene, time = divmod(rest, image.size_t)
        place = {"t": time, "c": channel, "z": z}
        outer = tuple(place[axis] for axis in self._axes if axis in place)
        target = self._scenes[scene][level]
        target[(*outer, slice(top, top + len(rows)), slice(None))] = rows  # type: ignore[index]
