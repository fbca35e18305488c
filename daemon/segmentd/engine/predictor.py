"""A loaded model, made ready to compute: what its forest needs of the features, and the forest by packets."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.compute import fast_features, packets
from segmentd.compute.fast_features import Floats
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import feature_sets
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


class Predictor:
    """Computes tiles with one model, by the fastest kernel or the given one; threads may share it."""

    def __init__(self, model: Model, kernel: packets.Kernel | None = None) -> None:
        self.card: ModelCard = model.card
        used = np.zeros(model.forest.feature_count, np.bool_)
        used[model.forest.feature[model.forest.feature >= 0]] = True
        feature_set = feature_sets()[model.card.feature_set]
        self.plan = plan_features(feature_set, model.card.channel_count, used)
        self.forest = packets.compile_forest(model.forest, self.plan.plane_of_feature)
        self._kernel = packets.choose_kernel(kernel)

    @property
    def reach_px(self) -> int:
        """How far around a pixel the model reads, in pixels."""
        return self.plan.reach_px

    @property
    def size_bytes(self) -> int:
        """What the model takes on a device, in bytes."""
        forest, plan = self.forest, self.plan
        arrays = (forest.nodes, forest.roots, forest.leaf_trees, forest.leaf_values, plan.steps, plan.weights)
        return sum(array.nbytes for array in arrays)

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
        """Labels and confidence of one tile: uint8 (h, w).

        Parameters as for `segmentd.compute.fast_features.load`.
        """
        labels = np.empty((core.height, core.width), np.uint8)
        confidence = np.empty_like(labels)
        self._load(pixels, core, border_px, scale, level, first_row, plane_height)
        for columns, features in self._parts(core.width):
            with telemetry.stage("forest"):
                part = (slice(None), columns)
                packets.classify(
                    self.forest, features, labels[part], confidence[part], _scratch.forest, self._kernel
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

        Parameters as for `run`; its labels are the first class of highest probability, before rounding to
        float32.
        """
        found = np.empty((len(self.card.classes), core.height, core.width), np.float32)
        self._load(pixels, core, border_px, scale, level, first_row, plane_height)
        for columns, features in self._parts(core.width):
            with telemetry.stage("forest"):
                width = columns.stop - columns.start
                found[:, :, columns] = packets.scores(
                    self.forest, features, core.height, width, _scratch.forest, self._kernel
                )
        return found

    def _load(
        self,
        pixels: npt.NDArray[np.generic],
        core: Region,
        border_px: int,
        scale: Scale | None,
        level: Floats,
        first_row: int,
        plane_height: int,
    ) -> None:
        with telemetry.stage("features"):
            fast_features.load(
                self.plan,
                pixels,
                core,
                border_px,
                _scratch.features,
                scale=scale,
                level=level,
                first_row=first_row,
                plane_height=plane_height,
            )

    def _parts(self, width: int) -> Iterator[tuple[slice, Floats]]:
        """Columns of the tile that is loaded and their features, a few packets at a time."""
        rows, columns = _scratch.features.grid
        step = max(1, PACKETS_AT_ONCE // rows)
        edge = fast_features.PACKET_PX
        for first in range(0, columns, step):
            count = min(step, columns - first)
            features = _scratch.packets(rows * count, self.plan.plane_count)
            with telemetry.stage("features"):
                fast_features.compute(self.plan, _scratch.features, first, features)
            yield slice(first * edge, min((first + count) * edge, width)), features
