"""A loaded model, made ready to compute: what its forest needs of the features, and the forest by packets."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.compute import fast_features, packets
from segmentd.compute.fast_features import Floats
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import filter_sets
from segmentd.compute.normalize import Scale
from segmentd.models.bundle import Model
from segmentd.records import ModelCard, Region

Bytes = npt.NDArray[np.uint8]

# Packets that are computed and classified before the next ones: their features stay in the cache.
PACKETS_AT_ONCE = 512


class _Scratch(threading.local):
    """Working memory of one thread, used again for each tile of any model."""

    def __init__(self) -> None:
        self.features = fast_features.Scratch()
        self.forest = packets.Scratch()
        self._packets = fast_features.aligned((0,))

    def packets(self, count: int, planes: int) -> Floats:
        """Room for `count` packets: float32 (count, planes, 64), aligned."""
        size = count * planes * fast_features.PACKET_PX**2
        if self._packets.size < size:
            self._packets = fast_features.aligned((size,))
        return self._packets[:size].reshape(count, planes, fast_features.PACKET_PX**2)


SCRATCH = _Scratch()


class TilePredictor(ABC):
    """A forest and its features, ready to compute tiles; may be used by several threads at once.

    Attributes
    ----------
    tile_px : int
        Edge of a tile where nobody asks for another.
    step_px : int
        Tiles begin at multiples of this.
    reach_px : int
        How far around a pixel the model reads, in pixels.
    forest : PacketForest
        The forest, laid out for packets.
    """

    tile_px: int
    step_px: int
    reach_px: int

    def __init__(
        self, card: ModelCard, forest: packets.PacketForest, kernel: packets.Kernel | None = None
    ) -> None:
        self.card = card
        self.forest = forest
        self._kernel = packets.choose_kernel(kernel)

    @abstractmethod
    def parts(
        self,
        pixels: npt.NDArray[np.generic],
        core: Region,
        border_px: int,
        scale: Scale | None,
        level: Floats,
        first_row: int,
        plane_height: int,
    ) -> Iterator[tuple[slice, Floats]]:
        """Columns of a tile and their features in packets, a few at a time, from the left.

        Parameters as for `segmentd.compute.fast_features.load`.
        """

    def run(
        self,
        pixels: npt.NDArray[np.generic],
        core: Region,
        border_px: int,
        scale: Scale | None,
        level: Floats,
        first_row: int,
        plane_height: int,
    ) -> tuple[Bytes, Bytes]:
        """Labels and confidence of one tile: uint8 (h, w). Parameters as for `parts`."""
        labels = np.empty((core.height, core.width), np.uint8)
        confidence = np.empty_like(labels)
        parts = self.parts(pixels, core, border_px, scale, level, first_row, plane_height)
        for columns, features in parts:
            with telemetry.stage("forest"):
                part = (slice(None), columns)
                packets.classify(
                    self.forest, features, labels[part], confidence[part], SCRATCH.forest, self._kernel
                )
        return labels, confidence

    def scores(
        self,
        pixels: npt.NDArray[np.generic],
        core: Region,
        border_px: int,
        scale: Scale | None,
        level: Floats,
        first_row: int,
        plane_height: int,
    ) -> Floats:
        """Probability of each class in one tile: float32 (K, h, w), sum 1 up to rounding.

        Parameters as for `parts`; labels are the first class of highest probability, before rounding to
        float32.
        """
        found = np.empty((len(self.card.classes), core.height, core.width), np.float32)
        parts = self.parts(pixels, core, border_px, scale, level, first_row, plane_height)
        for columns, features in parts:
            with telemetry.stage("forest"):
                width = columns.stop - columns.start
                found[:, :, columns] = packets.scores(
                    self.forest, features, core.height, width, SCRATCH.forest, self._kernel
                )
        return found


class Predictor(TilePredictor):
    """A forest on filters, walked by the fastest kernel or the given one."""

    tile_px = 512
    step_px = 1

    def __init__(self, model: Model, kernel: packets.Kernel | None = None) -> None:
        used = np.zeros(model.forest.feature_count, np.bool_)
        used[model.forest.feature[model.forest.feature >= 0]] = True
        feature_set = filter_sets()[model.card.feature_set]
        self.plan = plan_features(feature_set, model.card.channel_count, used)
        self.reach_px = self.plan.reach_px
        forest = packets.compile_forest(model.forest, self.plan.plane_of_feature)
        super().__init__(model.card, forest, kernel)

    @property
    def size_bytes(self) -> int:
        """What the model takes on a device, in bytes."""
        forest, plan = self.forest, self.plan
        arrays = (forest.nodes, forest.roots, forest.leaf_trees, forest.leaf_values, plan.steps, plan.weights)
        return sum(array.nbytes for array in arrays)

    def parts(
        self,
        pixels: npt.NDArray[np.generic],
        core: Region,
        border_px: int,
        scale: Scale | None,
        level: Floats,
        first_row: int,
        plane_height: int,
    ) -> Iterator[tuple[slice, Floats]]:
        """The tile is laid out once; features of a few packets are computed where they stay in the cache."""
        with telemetry.stage("features"):
            fast_features.load(
                self.plan,
                pixels,
                core,
                border_px,
                SCRATCH.features,
                scale=scale,
                level=level,
                first_row=first_row,
                plane_height=plane_height,
            )
        rows, columns = SCRATCH.features.grid
        step = max(1, PACKETS_AT_ONCE // rows)
        edge = fast_features.PACKET_PX
        for first in range(0, columns, step):
            count = min(step, columns - first)
            features = SCRATCH.packets(rows * count, self.plan.plane_count)
            with telemetry.stage("features"):
                fast_features.compute(self.plan, SCRATCH.features, first, features)
            yield slice(first * edge, min((first + count) * edge, core.width)), features
