"""A forest on deep features, made ready to compute: the network, what lies between its cells, the forest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.compute import deep, deep_cells, fast_features, packets
from segmentd.compute.fast_features import Floats
from segmentd.compute.normalize import Scale
from segmentd.engine.predictor import PACKETS_AT_ONCE, SCRATCH, TilePredictor
from segmentd.models.bundle import Model
from segmentd.records import Region

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
        super().__init__(model.card, packets.compile_forest(model.forest, places))

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
        """The network runs once; pixels between its cells are computed a few packets at a time.

        A grey level is of no use here.
        """
        with telemetry.stage("network"):
            cells = self._extractor.cells(pixels, core, border_px, scale, first_row, plane_height)
        stride, planes = self._extractor.feature_set.stride_px, self._planes
        edge = fast_features.PACKET_PX
        rows, columns = fast_features.packet_grid(core.height, core.width)
        at_once = min(PACKETS_AT_ONCE, PACKET_BYTES // (4 * edge * edge * max(1, len(planes))))
        step = max(1, at_once // rows)
        for first in range(0, columns, step):
            count = min(step, columns - first)
            features = SCRATCH.packets(rows * count, len(planes))
            with telemetry.stage("features"):
                deep_cells.fill(cells, planes, stride, first, count, features)
            yield slice(first * edge, min((first + count) * edge, core.width)), features
