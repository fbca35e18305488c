"""A loaded model, made ready to compute: what its forest needs of the features, and the forest by packets."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


_scratch = _Scratch()


@dataclass(frozen=True)
class Cut:
    """A tile and what it is cut from; the fields are parameters of `segmentd.compute.fast_features.load`."""

    pixels: npt.NDArray[np.generic]
    core: Region
    border_px: int
    scale: Scale | None
    level: Floats
    first_row: int
    plane_height: int


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
    plane_count : int
        Features of a pixel that the forest uses.
    packets_at_once : int
        Packets that are computed and classified before the next ones.
    """

    tile_px: int
    step_px: int
    reach_px: int
    plane_count: int
    packets_at_once = PACKETS_AT_ONCE

    def __init__(
        self, card: ModelCard, forest: packets.PacketForest, kernel: packets.Kernel | None = None
    ) -> None:
        self.card = card
        self.forest = forest
        self._kernel = packets.choose_kernel(kernel)

    @abstractmethod
    def lay_out(self, cut: Cut) -> Callable[[int, int, Floats], None]:
        """Make a tile ready; returns what computes the features of its packets.

        That takes the first column of packets, how many columns, and where the features go: float32
        (rows * columns, plane_count, 64). It is called from left to right, in the same thread.
        """

    def run(self, cut: Cut) -> tuple[Bytes, Bytes]:
        """Labels and confidence of one tile: uint8 (h, w)."""
        labels = np.empty((cut.core.height, cut.core.width), np.uint8)
        confidence = np.empty_like(labels)
        for columns, features in self._parts(cut):
            with telemetry.stage("forest"):
                part = (slice(None), columns)
                packets.classify(
                    self.forest, features, labels[part], confidence[part], _scratch.forest, self._kernel
                )
        return labels, confidence

    def scores(self, cut: Cut) -> Floats:
        """Probability of each class in one tile: float32 (K, h, w), sum 1 up to rounding.

        Labels are the first class of highest probability, before rounding to float32.
        """
        height, width = cut.core.height, cut.core.width
        found = np.empty((len(self.card.classes), height, width), np.float32)
        for columns, features in self._parts(cut):
            with telemetry.stage("forest"):
                found[:, :, columns] = packets.scores(
                    self.forest,
                    features,
                    height,
                    columns.stop - columns.start,
                    _scratch.forest,
                    self._kernel,
                )
        return found

    def _parts(self, cut: Cut) -> Iterator[tuple[slice, Floats]]:
        """Columns of a tile and their features in packets, a few at a time, from the left."""
        fill = self.lay_out(cut)
        edge = fast_features.PACKET_PX
        rows, columns = fast_features.packet_grid(cut.core.height, cut.core.width)
        step = max(1, self.packets_at_once // rows)
        for first in range(0, columns, step):
            count = min(step, columns - first)
            features = _scratch.packets(rows * count, self.plane_count)
            with telemetry.stage("features"):
                fill(first, count, features)
            yield slice(first * edge, min((first + count) * edge, cut.core.width)), features


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
        self.plane_count = self.plan.plane_count
        forest = packets.compile_forest(model.forest, self.plan.plane_of_feature)
        super().__init__(model.card, forest, kernel)

    @property
    def size_bytes(self) -> int:
        """What the model takes on a device, in bytes."""
        forest, plan = self.forest, self.plan
        arrays = (forest.nodes, forest.roots, forest.leaf_trees, forest.leaf_values, plan.steps, plan.weights)
        return sum(array.nbytes for array in arrays)

    def lay_out(self, cut: Cut) -> Callable[[int, int, Floats], None]:
        """The tile is laid out once; features of a few packets are computed where they stay in the cache."""
        with telemetry.stage("features"):
            fast_features.load(
                self.plan,
                cut.pixels,
                cut.core,
                cut.border_px,
                _scratch.features,
                scale=cut.scale,
                level=cut.level,
                first_row=cut.first_row,
                plane_height=cut.plane_height,
            )

        def fill(first: int, count: int, features: Floats) -> None:
            fast_features.compute(self.plan, _scratch.features, first, features)

        return fill
