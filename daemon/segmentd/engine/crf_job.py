"""A plane whose class probabilities go through the conditional random field, window by window.

A window is a tile and a border around it. The field has no reach after which nothing counts; the border is
wide enough that two windows hardly ever disagree. All windows stand on the same lattice and see grey levels
scaled by the whole plane, so what is left of seams is single pixels (see the README).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from segmentd.compute import crf, normalize, tiling
from segmentd.compute.decide import apply_minimum_confidence, decide
from segmentd.engine.refiner import Marginals
from segmentd.engine.segmenter import Band, BandResult, ScoredPlane, TileResult
from segmentd.engine.source import PlaneSource, bands
from segmentd.records import Region, SegmentOptions

# A multiple of the rows in which results are written.
TILE_PX = 768
BORDER_PX = 64
CERTAIN = np.uint8(100)


@dataclass(frozen=True)
class _Banded:
    """A source whose bands are whole rows of tiles, so that tiles do not depend on how it is read."""

    source: PlaneSource

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape

    @property
    def band_rows(self) -> int:
        return -(-self.source.band_rows // TILE_PX) * TILE_PX

    def rows(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        return self.source.rows(start, stop)


class CrfJob:
    """A plane made ready, as those of models are.

    Parameters
    ----------
    plane : ScoredPlane
        Gives the probabilities.
    channels : slice
        The channels that the model uses; the field looks at the same ones.
    options : SegmentOptions
        What the confidence shall be, and the minimum confidence.
    refiner : Marginals
        What computes.

    Attributes
    ----------
    plane
        As given.
    """

    def __init__(
        self, plane: ScoredPlane, channels: slice, options: SegmentOptions, refiner: Marginals
    ) -> None:
        self.plane = plane
        self._channels = channels
        self._options = options
        self._refiner = refiner
        self.source: PlaneSource = _Banded(plane.source)
        self.tile_px = TILE_PX
        self._parameters = crf.Parameters()
        scale = normalize.measure(self._blocks, "percentile")
        assert scale is not None
        self._scale = scale

    def _blocks(self) -> Iterator[npt.NDArray[np.generic]]:
        for start, stop in bands(self.source):
            yield self.source.rows(start, stop)[self._channels]

    def read(self, start: int, stop: int) -> Band:
        """Read the rows that the windows of rows start..stop-1 need."""
        height = self.source.shape[1]
        wide = self.plane.read(max(0, start - BORDER_PX), min(height, stop + BORDER_PX))
        return Band(start, stop, wide.low, wide.window, wide.channels)

    def bands(self) -> Iterator[tuple[int, int]]:
        """First and last row (exclusive) of each band: whole rows of tiles."""
        return bands(self.source)

    def work(self, band: Band) -> Iterator[Callable[[], list[TileResult]]]:
        """One tile each, to be computed by any thread."""
        for tile in tiling.cover(band.stop - band.start, self.source.shape[2], TILE_PX):
            yield partial(self._run, band, Region(tile.y + band.start, tile.x, tile.height, tile.width))

    def arrange(self, strips: Iterator[BandResult]) -> Iterator[BandResult]:
        """Rows of tiles end where results can be written."""
        return strips

    def _run(self, band: Band, core: Region) -> list[TileResult]:
        around = _grown(core, *self.source.shape[1:])
        rows = slice(around.y - band.low, around.y - band.low + around.height)
        pixels = band.used[:, rows, around.x : around.x + around.width]
        scores = self.plane.scores(band, around)
        mask = normalize.masked(pixels)
        if mask is not None:
            scores[:, mask] = 1 / len(scores)  # no opinion
        guide = crf.make_guide(pixels, self._scale)
        marginals = self._refiner.marginals(crf.Window(scores, guide, around.y, around.x), self._parameters)
        y, x = core.y - around.y, core.x - around.x
        inside = (slice(y, y + core.height), slice(x, x + core.width))
        return [
            TileResult(core, *self._decide(marginals[:, *inside], None if mask is None else mask[inside]))
        ]

    def _decide(
        self, marginals: crf.Floats, mask: npt.NDArray[np.bool_] | None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        labels, confidence = decide(marginals)
        if self._options.confidence == "map":
            confidence[:] = CERTAIN
        labels = apply_minimum_confidence(labels, confidence, self._options.min_confidence)
        if mask is not None:
            labels[mask] = 0
            confidence[mask] = 0
        return labels, confidence


def _grown(core: Region, height: int, width: int) -> Region:
    """The region with the border around it, as far as the plane goes."""
    top, left = max(0, core.y - BORDER_PX), max(0, core.x - BORDER_PX)
    bottom = min(height, core.y + core.height + BORDER_PX)
    right = min(width, core.x + core.width + BORDER_PX)
    return Region(top, left, bottom - top, right - left)
