"""One plane: measured once, then tile by tile to labels and confidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segmentd.compute import fast_features, normalize, tiling
from segmentd.compute.decide import apply_minimum_confidence
from segmentd.engine.predictor import Cut, TilePredictor
from segmentd.engine.source import PlaneSource, bands
from segmentd.records import Region, SegmentOptions

Bytes = npt.NDArray[np.uint8]
FEW_CLASSES = 8


@dataclass(frozen=True)
class TileResult:
    """Labels and confidence (uint8 (h, w), confidence in percent) of one core region of the plane.

    `image` (C, h, w) is what a network for images makes; labels and confidence are 0 then.
    """

    region: Region
    labels: Bytes
    confidence: Bytes
    image: npt.NDArray[np.generic] | None = None


@dataclass(frozen=True)
class BandResult:
    """Some rows of a plane from `first_row` on.

    `labels` and `confidence` are uint8 (h, X), `pixels` (C, h, X) are all channels of the image;
    `masked_pixels` counts those that are not finite; `compute_seconds` is from the strip before to this one.
    `image` (C, h, X) is what a network for images makes.
    `device` names all devices that computed the plane so far, `device_reason` says why not the preferred one.
    """

    first_row: int
    labels: Bytes
    confidence: Bytes
    pixels: npt.NDArray[np.generic]
    masked_pixels: int
    compute_seconds: float
    image: npt.NDArray[np.generic] | None = None
    device: str = ""
    device_reason: str = ""

    @property
    def end_row(self) -> int:
        """The row below."""
        return self.first_row + len(self.labels)


@dataclass
class Tally:
    """What is told of a plane, added up band by band.

    `label_pixel_counts` are the pixels with label 0 (unlabelled), 1, ... K.
    """

    class_count: int
    masked_pixels: int = 0
    compute_seconds: float = 0.0
    device: str = ""
    device_reason: str = ""
    _counts: npt.NDArray[np.int64] = field(init=False)
    _confidence_sum: int = 0

    def __post_init__(self) -> None:
        self._counts = np.zeros(self.class_count + 1, np.int64)

    def add(self, band: BandResult) -> None:
        """Count one band."""
        if self.class_count <= FEW_CLASSES:  # bincount would first make eight bytes of every label
            self._counts += [np.count_nonzero(band.labels == value) for value in range(len(self._counts))]
        else:
            self._counts += np.bincount(band.labels.ravel(), minlength=len(self._counts))
        self._confidence_sum += int(band.confidence.sum(dtype=np.int64))
        self.masked_pixels += band.masked_pixels
        self.compute_seconds += band.compute_seconds
        self.device, self.device_reason = band.device, band.device_reason

    @property
    def label_pixel_counts(self) -> tuple[int, ...]:
        """Pixels with label 0, 1, ... K."""
        return tuple(int(count) for count in self._counts)

    @property
    def mean_confidence(self) -> float:
        """In percent, over all pixels."""
        return self._confidence_sum / max(1, int(self._counts.sum()))


class ScoredPlane(Protocol):
    """A plane made ready for a model that tells the probability of each class, forest or network."""

    source: PlaneSource

    def read(self, start: int, stop: int) -> Band:
        """Read the rows that rows start..stop-1 need."""

    def scores(self, band: Band, region: Region) -> npt.NDArray[np.float32]:
        """Probabilities (K, h, w) of a rectangle of the plane; `band` was read for its rows at least.

        May be called by several threads at once.
        """


class PlaneJob:
    """A plane made ready: its normalisation is measured.

    Parameters
    ----------
    predictor : TilePredictor
        What to compute.
    source : PlaneSource
        The plane, in the model's pixel type.
    channels : slice
        The channels that the model uses.
    options : SegmentOptions
        Border, tile and minimum confidence.

    Attributes
    ----------
    scale, level
        As for `segmentd.compute.fast_features.load`.
    """

    def __init__(
        self, predictor: TilePredictor, source: PlaneSource, channels: slice, options: SegmentOptions
    ) -> None:
        self.predictor = predictor
        self.source = source
        self._channels = channels
        self._options = options
        step = predictor.step_px
        self.tile_px = -(-(options.tile_px or predictor.tile_px) // step) * step
        card = predictor.card
        self._border_px = card.border_px if options.border_px is None else options.border_px
        self.scale = normalize.measure(self._blocks, card.normalization)
        self.level = fast_features.grey_level(source.rows(0, 1)[channels][:, 0], self.scale)

    @property
    def seamless(self) -> bool:
        """Whether labels do not depend on how the plane is cut into tiles."""
        return self._border_px >= self.predictor.reach_px

    def _blocks(self) -> Iterator[npt.NDArray[np.generic]]:
        for start, stop in bands(self.source):
            yield self.source.rows(start, stop)[self._channels]

    def read(self, start: int, stop: int) -> Band:
        """Read the rows that the tiles of rows start..stop-1 need."""
        height = self.source.shape[1]
        # At the plane's edge a tile may be filled up to a step.
        reach = self.predictor.reach_px + self.predictor.step_px - 1
        low, high = tiling.needed_rows(start, stop, height, reach, self._border_px)
        return Band(start, stop, low, self.source.rows(low, high), self._channels)

    def tiles(self, band: Band) -> Iterator[Region]:
        """The core regions of all tiles of a band, in coordinates of the plane."""
        width = self.source.shape[2]
        for tile in tiling.cover(band.stop - band.start, width, self.tile_px):
            yield Region(tile.y + band.start, tile.x, tile.height, tile.width)

    def scores(self, band: Band, region: Region) -> npt.NDArray[np.float32]:
        """Probabilities (K, h, w) of a rectangle of the plane; `band` was read for its rows at least."""
        found = np.empty((len(self.predictor.card.classes), region.height, region.width), np.float32)
        for part in tiling.cover(region.height, region.width, self.tile_px):
            core = Region(region.y + part.y, region.x + part.x, part.height, part.width)
            found[:, *part.window] = self.score_tile(band, core)
        return found

    def score_tile(self, band: Band, core: Region) -> npt.NDArray[np.float32]:
        """Probabilities (K, h, w) of one tile."""
        return self.predictor.scores(self._cut(band, core))

    def run_tile(self, band: Band, core: Region) -> TileResult:
        """Compute one tile; may run in any thread, tiles do not depend on one another."""
        labels, confidence = self.predictor.run(self._cut(band, core))
        return self.finished(band, core, labels, confidence)

    def around(self, band: Band, core: Region) -> npt.NDArray[np.generic]:
        """Cut a tile with what the model reads around it: array (C, h + 2 reach, w + 2 reach)."""
        reach, height = self.predictor.reach_px, self.source.shape[1]
        return tiling.cut(band.used, core, reach, self._border_px, band.low, height)

    def finished(self, band: Band, core: Region, labels: Bytes, confidence: Bytes) -> TileResult:
        """A computed tile, with label 0 where the confidence is too low or the pixel is no number."""
        labels = apply_minimum_confidence(labels, confidence, self._options.min_confidence)
        if band.mask is not None:
            first = core.y - band.start
            bad = band.mask[first : first + core.height, core.x : core.x + core.width]
            labels[bad] = 0
            confidence[bad] = 0
        return TileResult(core, labels, confidence)

    def _cut(self, band: Band, core: Region) -> Cut:
        height = self.source.shape[1]
        return Cut(band.used, core, self._border_px, self.scale, self.level, band.low, height)


@dataclass(frozen=True)
class Band:
    """Rows start..stop-1 of a plane and what lies around them: `window` (C, h, X) begins at row `low`."""

    start: int
    stop: int
    low: int
    window: npt.NDArray[np.generic]
    channels: slice
    mask: npt.NDArray[np.bool_] | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", normalize.masked(self.pixels[self.channels]))

    @property
    def used(self) -> npt.NDArray[np.generic]:
        """The channels that the model uses, of the whole window."""
        return self.window[self.channels]

    @property
    def pixels(self) -> npt.NDArray[np.generic]:
        """Rows start..stop-1 of all channels."""
        return self.window[:, self.start - self.low : self.stop - self.low]
