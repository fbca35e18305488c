"""A forest on deep features, made ready to compute: the network, what lies between its cells, the forest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.compute import deep, deep_cells, fast_features, packets
from segmentd.compute.fast_features import Floats
from segmentd.compute.normalize import Scale
from segmentd.engine.predictor import PACKETS_AT_ONCE, SCRATCH, Bytes
from segmentd.models.bundle import Model
from segmentd.records import ModelCard, Region

# Packets of hundreds of planes are large: so many bytes of them at once.
PACKET_BYTES = 16 << 20


class DeepPredictor:
    """Computes tiles with one model; may be used by several threads at once.

    Each needs about 130 MiB for the network's layers, which is why tiles are smaller than those of filters.
    """

    tile_px = deep.TILE_PX
    step_px = deep.ALIGNMENT_PX

    def __init__(self, model: Model, extractor: deep.Extractor) -> None:
        self.card: ModelCard = model.card
        self._extractor = extractor
        used = np.unique(model.forest.feature[model.forest.feature >= 0])
        self._planes = used.astype(np.int32)
        places = np.full(model.forest.feature_count, -1, np.int32)
        places[used] = np.arange(len(used))
        self._forest = packets.compile_forest(model.forest, places)
        self._kernel = packets.choose_kernel()

    @property
    def reach_px(self) -> int:
        """How far around a tile rows may be read, in pixels."""
        return self._extractor.feature_set.reach_px + deep.ALIGNMENT_PX - 1

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

        Parameters as for `segmentd.compute.deep.Extractor.cells`; a grey level is of no use here.
        """
        with telemetry.stage("network"):
            cells = self._extractor.cells(pixels, core, border_px, scale, first_row, plane_height)
        labels = np.empty((core.height, core.width), np.uint8)
        confidence = np.empty_like(labels)
        rows, columns = fast_features.packet_grid(core.height, core.width)
        stride, edge, planes = (
            self._extractor.feature_set.stride_px,
            fast_features.PACKET_PX,
            len(self._planes),
        )
        at_once = min(PACKETS_AT_ONCE, PACKET_BYTES // (4 * edge * edge * max(1, planes)))
        step = max(1, at_once // rows)
        for first in range(0, columns, step):
            count = min(step, columns - first)
            features = SCRATCH.packets(rows * count, planes)
            with telemetry.stage("features"):
                deep_cells.fill(cells, self._planes, stride, first, count, features)
            part = (slice(None), slice(first * edge, (first + count) * edge))
            with telemetry.stage("forest"):
                packets.classify(
                    self._forest, features, labels[part], confidence[part], SCRATCH.forest, self._kernel
                )
        return labels, confidence
