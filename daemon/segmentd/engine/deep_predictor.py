"""A forest on deep features, made ready to compute: the network, what lies between its cells, the forest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

import numpy as np

from segmentd import telemetry
from segmentd.compute import deep, deep_cells, fast_features, packets
from segmentd.compute.fast_features import Floats
from segmentd.engine.array_models import ArrayModel, DeviceFeatures, Evaluate
from segmentd.engine.predictor import PACKETS_AT_ONCE, Cut, TilePredictor
from segmentd.models.bundle import Model

# Packets of hundreds of planes are large: no more than so many bytes of them at once.
PACKET_BYTES = 16 << 20


class DeepPredictor(TilePredictor):
    """A forest on deep features.

    A thread needs about 130 MiB for the network's layers: hence tiles are smaller than those of filters.
    """

    tile_px = deep.TILE_PX
    step_px = deep.ALIGNMENT_PX

    def __init__(self, model: Model, extractor: deep.Extractor) -> None:
        self._extractor = extractor
        self.reach_px = extractor.feature_set.reach_px
        used = np.unique(model.forest.feature[model.forest.feature >= 0])
        self._planes = used.astype(np.int32)
        places = np.full(model.forest.feature_count, -1, np.int32)
        places[used] = np.arange(len(used))
        self.plane_count = len(used)
        at_most = PACKET_BYTES // (4 * fast_features.PACKET_PX**2 * max(1, len(used)))
        self.packets_at_once = min(PACKETS_AT_ONCE, at_most)
        super().__init__(model.card, packets.compile_forest(model.forest, places))
        self.on_device = DeviceFeatures(
            model.card, extractor.feature_set, extractor.layers, extractor.projection, extractor.run
        )
        self._evaluate: Evaluate = _on_cpu

    def through(self, evaluate: Evaluate) -> Self:
        """The same model, the network of which `evaluate` computes."""
        routed = copy.copy(self)
        routed._evaluate = evaluate
        return routed

    def lay_out(self, cut: Cut) -> Callable[[int, int, Floats], None]:
        """The network runs once; pixels between its cells are computed a few packets at a time.

        A grey level is of no use here.
        """
        with telemetry.stage("network"):
            grey = self._extractor.tile(
                cut.pixels, cut.core, cut.border_px, cut.scale, cut.first_row, cut.plane_height
            )
            cells = deep.flat(self._evaluate(self.on_device, grey))
        stride = self._extractor.feature_set.stride_px

        def fill(first: int, count: int, features: Floats) -> None:
            deep_cells.fill(cells, self._planes, stride, first, count, features)

        return fill


def _on_cpu(features: ArrayModel, grey: Floats) -> Floats:
    return features.on_cpu()(grey)
