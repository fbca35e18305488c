"""What of an OME-Zarr that is still being written can be read already. Runs in a worker process.

A plane is there when all its chunks are, and chunks of a later plane. Where a chunk (or shard) holds several
planes, it is written again with each of them; these planes are there when later chunks are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from segmentd.ingest.growth import Part, complete
from segmentd.ingest.ome_zarr import OmeZarrImage
from segmentd.ingest.tiff_layout import AnyArray
from segmentd.ingest.zarr_structure import ZarrSummary, check_size, read_summary
from segmentd.records import FrameInfo, PlaneIndex

Group = tuple[int, int, int]


class GrowingZarr:
    """An open OME-Zarr that is still being written; attributes as those of `GrowingTiff`."""

    def __init__(self, fd: int) -> None:
        summary, files = read_summary(fd)
        check_size(summary)
        self._summary = summary
        self._image = OmeZarrImage(fd, summary)
        self.info: FrameInfo = self._image.info
        self.total = self.info.plane_count
        groups = parts_of_groups(summary, files)
        names = list(groups)
        self._complete = {names[number] for number in complete(list(groups.values()))}

    def use(self, fd: int) -> None:
        """Read through another descriptor of the same folder from now on."""
        self._image.use(fd)

    def complete(self) -> Iterator[tuple[int, PlaneIndex]]:
        """The planes that are complete, with their position among all."""
        times, depths = (_chunk_length(self._summary, axis) for axis in "tz")
        for position, index in enumerate(self.info.planes()):
            if (index.scene, index.time // times, index.z // depths) in self._complete:
                yield position, index

    def read(self, index: PlaneIndex) -> AnyArray:
        """Decode one plane: array (C, Y, X) of the frame's pixel type."""
        return self._image.read(index)


def parts_of_groups(summary: ZarrSummary, files: dict[str, int]) -> dict[Group, Part]:
    """What is there of the planes that share their chunks, by scene and number of the chunk in T and Z."""
    parts = {}
    for scene, array in enumerate(summary.scenes):
        found: Counter[tuple[int, int]] = Counter()
        for index, name in array.chunks_in(files):
            if files[name]:
                place = dict(zip(summary.axes, index, strict=True))
                found[place.get("t", 0), place.get("z", 0)] += 1
        grid = dict(zip(summary.axes, array.grid, strict=True))
        times, depths = grid.get("t", 1), grid.get("z", 1)
        wanted = math.prod(array.grid) // (times * depths)
        for time in range(times):
            for z in range(depths):
                count = found[time, z]
                part = Part.WRITTEN if count == wanted else Part.BEGUN
                parts[scene, time, z] = part if count else Part.EMPTY
    return parts


def _chunk_length(summary: ZarrSummary, axis: str) -> int:
    position = summary.axes.find(axis)
    return 1 if position < 0 else summary.scenes[0].chunks[position]
