"""One plane through an imported network: tiles as the network wants them, rows of tiles as bands."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.compute import fixed_tiles, network
from segmentd.compute.decide import apply_minimum_confidence
from segmentd.compute.fixed_tiles import Span
from segmentd.engine.array_models import DeviceNetwork, Evaluate
from segmentd.engine.network_scores import NetworkScores
from segmentd.engine.segmenter import Band, BandResult, ScoredPlane, TileResult
from segmentd.engine.shelves import in_steps
from segmentd.engine.source import PlaneSource
from segmentd.errors import Reason, SegmentdError
from segmentd.models.network_model import NetworkModel
from segmentd.records import Region, SegmentOptions

# Networks of free size halve their planes several times: edges are multiples of this.
EDGE_STEP_PX = 32
MAX_EDGE_PX = 4096

_log = telemetry.get_logger(__name__)


class NetworkRuntime:
    """A network in memory; its planes may be computed by several threads at once.

    `for_devices` keeps what devices need of it as `on_device`, else that is None.
    """

    def __init__(self, model: NetworkModel, threads: int, for_devices: bool = False) -> None:
        self.card = model.card
        self.spec = model.spec
        self._network = network.Network(model.network, model.spec, threads)
        # Where one call uses all threads, several at once would only need more memory.
        self._turn = threading.Semaphore(self._network.calls_at_once)
        self._warned = threading.Event()
        self.on_device = (
            DeviceNetwork(model.card, model.network, model.spec, self._here) if for_devices else None
        )
        self._evaluate: Evaluate | None = None

    def through(self, evaluate: Evaluate) -> Self:
        """The same network, whose tiles `evaluate` computes."""
        routed = copy.copy(self)
        routed._evaluate = evaluate
        return routed

    def scores(self, tiles: network.Floats) -> network.Floats:
        """Scores of tiles, as `segmentd.compute.network.Network.scores`."""
        with telemetry.stage("network"):
            if self._evaluate is None or self.on_device is None:
                return self._here(tiles)
            return self._evaluate(self.on_device, tiles)

    def _here(self, tiles: network.Floats) -> network.Floats:
        with self._turn:
            return self._network.scores(tiles)

    def tile_shape(self, border_px: int, tile_px: int | None) -> tuple[int, int]:
        """Height and width of a tile with its borders.

        Raises
        ------
        SegmentdError
            BAD_FIELD where the border leaves nothing of a tile.
        """
        height, width = self.spec.tile_height, self.spec.tile_width
        if tile_px is not None and self.spec.size_free:
            height = width = min(MAX_EDGE_PX, -(-(tile_px + 2 * border_px) // EDGE_STEP_PX) * EDGE_STEP_PX)
        elif tile_px is not None and not self._warned.is_set():
            self._warned.set()
            _log.warning(
                "the tile size is ignored, the network has its own",
                model=self.card.id,
                height=height,
                width=width,
            )
        if 2 * border_px >= min(height, width):
            raise SegmentdError(
                Reason.BAD_FIELD,
                f"a border of {border_px} px leaves nothing of the tiles of {height} x {width} px of model "
                f"'{self.card.display_name}'; use less than {min(height, width) // 2}",
                field="border_pixels",
            )
        return height, width


class NetworkJob:
    """A plane made ready for a network.

    Parameters
    ----------
    runtime : NetworkRuntime
        What to compute.
    source : PlaneSource
        The plane, in a pixel type that the model takes.
    channels : slice
        The channels that the model uses, in its order.
    options : SegmentOptions
        Border and minimum confidence; the tile, where the network is free to take another.
    """

    def __init__(
        self, runtime: NetworkRuntime, source: PlaneSource, channels: slice, options: SegmentOptions
    ) -> None:
        self._runtime = runtime
        self._spec = runtime.spec
        self.source = source
        self._channels = channels
        self._min_confidence = options.min_confidence
        border_px = runtime.card.border_px if options.border_px is None else options.border_px
        tile_height, tile_width = runtime.tile_shape(border_px, options.tile_px)
        self.tile_px = tile_height
        _, height, width = source.shape
        self._rows = {span.first: span for span in fixed_tiles.spans(height, tile_height, border_px)}
        self._columns = fixed_tiles.spans(width, tile_width, border_px)

    def bands(self) -> Iterator[tuple[int, int]]:
        """First and last row (exclusive) that each row of tiles answers for, from the top."""
        for span in self._rows.values():
            yield span.first, span.stop

    def read(self, start: int, stop: int) -> Band:
        """Read the rows that a row of tiles needs."""
        span = self._rows[start]
        low, high = max(0, span.start), min(self.source.shape[1], span.start + span.size)
        return Band(start, stop, low, self.source.rows(low, high), self._channels)

    def work(self, band: Band) -> Iterator[Callable[[], list[TileResult]]]:
        """The tiles of a band in batches, to be computed by any thread in any order."""
        for first in range(0, len(self._columns), self._spec.batch):
            yield partial(self._run, band, self._columns[first : first + self._spec.batch])

    def arrange(self, strips: Iterator[BandResult]) -> Iterator[BandResult]:
        """Rows of tiles end anywhere; results are written in full steps."""
        return in_steps(strips, self.source.shape[1])

    def scored(self) -> ScoredPlane:
        """The probabilities of classes.

        Raises
        ------
        SegmentdError
            BAD_FIELD where the network makes images or looks at several planes.
        """
        if self._spec.task == "regression" or self._spec.tile_depth:
            raise SegmentdError(
                Reason.BAD_FIELD,
                f"model '{self._runtime.card.display_name}' has no class probabilities of single planes; set "
                "postprocessing to none, and ask for no scores",
                field="postprocessing",
            )
        return NetworkScores(
            self._runtime, self.source, self._channels, list(self._rows.values()), self._columns
        )

    def _run(self, band: Band, columns: list[Span]) -> list[TileResult]:
        rows, height = self._rows[band.start], self.source.shape[1]
        tiles = [fixed_tiles.cut(band.used, rows, column, band.low, height) for column in columns]
        scores = self._scores(tiles)
        return [
            self._masked(band, self._result(rows, column, scores[number], band.window.dtype))
            for number, column in enumerate(columns)
        ]

    def _scores(self, tiles: list[npt.NDArray[np.generic]]) -> network.Floats:
        """Scores of a batch of tiles (C, ...) of pixels."""
        return self._runtime.scores(
            np.stack([network.prepare(tile, self._spec.scale_by_bit_depth) for tile in tiles])
        )

    def _result(
        self, rows: Span, columns: Span, scores: network.Floats, dtype: np.dtype[np.generic]
    ) -> TileResult:
        """What is found of the pixels that a tile answers for; `scores` (h, w, K) are of the whole tile."""
        core = Region(rows.first, columns.first, rows.stop - rows.first, columns.stop - columns.first)
        y, x = rows.first - rows.start, columns.first - columns.start
        kept = scores[y : y + core.height, x : x + core.width]
        if self._spec.task == "regression":
            nothing = np.zeros((core.height, core.width), np.uint8)
            image = network.restore(kept, dtype, self._spec.scale_by_bit_depth)
            return TileResult(core, nothing, nothing, np.moveaxis(image, -1, 0))
        labels, confidence = network.decide(kept, self._spec.softmax)
        labels = apply_minimum_confidence(labels, confidence, self._min_confidence)
        return TileResult(core, labels, confidence)

    @staticmethod
    def _masked(band: Band, tile: TileResult) -> TileResult:
        """The tile without labels where the plane is not a number."""
        if band.mask is not None:
            bad = band.mask[:, tile.region.x : tile.region.x + tile.region.width]
            tile.labels[bad] = 0
            tile.confidence[bad] = 0
        return tile
