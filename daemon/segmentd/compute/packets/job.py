"""What a kernel is given: addresses and counts; and the working memory that some of them point to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentd.compute.packets.layout import PACKET_PIXELS, PacketForest
from segmentd.compute.packets.masks import BIT_PLANES, GROUP
from segmentd.compute.packets.walk import BATCH_BYTES, CACHE_LINE, MOST_LANES
from segmentd.compute.packets.x86 import compress_table


def _digest_of_sources() -> str:
    """Changes with every file of this package.

    Numba keeps a kernel on disk until the file that it is in changes, and takes no notice of what it calls.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


JOB = np.dtype(
    [
        (name, np.int64)
        for name in (
            # the tile: packets in rows of `columns`
            *("features", "packets", "packet_bytes", "columns", "height", "width"),
            # the forest, see `PacketForest`; `value_bytes` is the length of a row of `leaf_values`
            *("nodes", "roots", "trees", "classes", "pure", "vote_places"),
            *("leaf_trees", "leaf_values", "value_bytes"),
            # results: rows of labels and confidence begin so many bytes apart; scores are contiguous
            *("labels", "label_pitch", "confidence", "confidence_pitch", "scores"),
            # order of the bits of a mask, see `output.bit_of_pixel`
            *("row_step", "run_step"),
            # working memory of the walk; `list_bytes` is the length of one of a list's three arrays
            *("level", "next_level", "leaves", "list_bytes"),
            *("compared", "children", "packet_starts", "compress_table"),
            # working memory of votes; `vote_bits` is the number of bits in the largest count
            *("votes", "vote_bits", "bit_planes", "counts"),
            # working memory of distributions
            *("marks", "own_leaves", "leaf_counts", "means"),
            # of both: best score and label of each pixel, and the percentage of a score as it is in `most`
            *("most", "winners", "percents"),
            # not used: field names are part of the type by which numba finds a kernel on disk
            f"sources_{_digest_of_sources()}",
        )
    ]
)
"""One tile to classify. Addresses are of bytes; those of what is not needed are 0."""


class Scratch:
    """Working memory of one thread; grows to the largest forest it has seen."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._forest: PacketForest | None = None
        self._job = np.zeros(1, JOB)

    def job(self, forest: PacketForest) -> npt.NDArray[np.void]:
        """One job, with all fields set that depend on the forest alone; the same array each time."""
        if forest is not self._forest:
            self._forest = None
            self._arrange(forest)
            self._forest = forest
        return self._job

    def _arrange(self, forest: PacketForest) -> None:
        # A list holds an item for each node or leaf that pixels of the group are spread over; a vector that
        # is stored at its end runs over by less than MOST_LANES.
        list_bytes = _whole_lines(4 * (GROUP * forest.width + MOST_LANES))
        value_bytes = 8 * forest.leaf_values.shape[1]
        sizes = {
            "level": 3 * list_bytes,
            "next_level": 3 * list_bytes,
            "leaves": 3 * list_bytes,
            "compared": 2 * BATCH_BYTES,
            "children": 2 * BATCH_BYTES,
            "packet_starts": 8 * GROUP,
            "compress_table": compress_table().nbytes,
            "most": GROUP * PACKET_PIXELS,
            "winners": GROUP * PACKET_PIXELS,
            "percents": 256,
        }
        if forest.pure:
            sizes |= {
                "votes": forest.class_count * forest.vote_places * 8 * GROUP,
                "bit_planes": BIT_PLANES * 8 * GROUP,
                "counts": PACKET_PIXELS,
            }
        else:
            sizes |= {
                "marks": GROUP * forest.tree_count * PACKET_PIXELS,
                "own_leaves": GROUP * forest.tree_count * PACKET_PIXELS * 4,
                "leaf_counts": GROUP * forest.tree_count * 4,
                "means": PACKET_PIXELS * value_bytes,
            }
        places = self._divide(sizes)
        shares = np.arange(forest.tree_count + 1) / forest.tree_count
        percents = np.rint(100.0 * shares) if forest.pure else np.arange(256)
        self._write(places["percents"], percents.astype(np.uint8))
        if forest.pure:  # kernels take the votes as empty, and empty them again
            self._write(places["votes"], np.zeros(sizes["votes"], np.uint8))
        self._write(places["compress_table"], compress_table().ravel())
        fields = {name: self._memory.ctypes.data + place for name, place in places.items()} | {
            "nodes": forest.nodes.ctypes.data,
            "roots": forest.roots.ctypes.data,
            "trees": forest.tree_count,
            "classes": forest.class_count,
            "pure": int(forest.pure),
            "vote_places": forest.vote_places,
            "vote_bits": forest.tree_count.bit_length(),
            "leaf_trees": forest.leaf_trees.ctypes.data,
            "leaf_values": forest.leaf_values.ctypes.data,
            "value_bytes": value_bytes,
            "list_bytes": list_bytes,
        }
        self._job[:] = 0
        for name, value in fields.items():
            self._job[name] = value

    def _divide(self, sizes: dict[str, int]) -> dict[str, int]:
        """Offsets in the memory, each at a cache line of its own."""
        places, end = {}, 0
        for name, size in sizes.items():
            places[name], end = end, end + _whole_lines(size)
        if end > self._memory.size:
            memory = np.empty(end + CACHE_LINE, np.uint8)
            self._memory = memory[-memory.ctypes.data % CACHE_LINE :][:end]
        return places

    def _write(self, place: int, table: npt.NDArray[np.uint8]) -> None:
        self._memory[place : place + table.size] = table


def _whole_lines(size: int) -> int:
    return -(-size // CACHE_LINE) * CACHE_LINE
