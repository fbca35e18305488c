"""One plane: measured once, then tile by tile to labels and confidence, stitched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentd.compute import forest, normalize, tiling
from segmentd.compute.decide import apply_minimum_confidence, decide
from segmentd.compute.features import compute_features, feature_sets
from segmentd.models.bundle import Model
from segmentd.records import Region, SegmentOptions

Bytes = npt.NDArray[np.uint8]
DEFAULT_TILE_PX = 512


@dataclass(frozen=True)
class TileResult:
    """Labels and confidence (uint8 (h, w), confidence in percent) of one core region."""

    region: Region
    labels: Bytes
    confidence: Bytes


@dataclass(frozen=True)
class PlaneResult:
    """Labels (1..K, 0 = unlabelled) and confidence (percent) of a plane: uint8 (Y, X)."""

    labels: Bytes
    confidence: Bytes
    masked_pixels: int
    compute_seconds: float

    def label_pixel_counts(self, class_count: int) -> tuple[int, ...]:
        """Pixels with label 0, 1, ... K."""
        counts = np.bincount(self.labels.ravel(), minlength=class_count + 1)
        return tuple(int(count) for count in counts)

    @property
    def mean_confidence(self) -> float:
        """In percent, over all pixels."""
        return float(self.confidence.mean(dtype=np.float64))


class PlaneJob:
    """A plane made ready: normalisation measured, pixels that are not numbers marked.

    Parameters
    ----------
    model : Model
        What to compute.
    pixels : array (C, Y, X)
        The channels that the model uses, in its pixel type.
    options : SegmentOptions
        Border, tile and minimum confidence.
    """

    def __init__(self, model: Model, pixels: npt.NDArray[np.generic], options: SegmentOptions) -> None:
        self.model = model
        self.pixels = pixels
        self.options = options
        self._features = feature_sets()[model.card.feature_set]
        self._border_px = model.card.border_px if options.border_px is None else options.border_px
        self._scale = normalize.measure(pixels, model.card.normalization)
        self._mask = normalize.masked(pixels)

    @property
    def masked_pixels(self) -> int:
        """Pixels that are NaN or infinite in any channel."""
        return 0 if self._mask is None else int(self._mask.sum())

    def tiles(self) -> Iterator[Region]:
        """The core regions of all tiles."""
        height, width = self.pixels.shape[1:]
        return tiling.cover(height, width, self.options.tile_px or DEFAULT_TILE_PX)

    def run_tile(self, core: Region) -> TileResult:
        """Compute one tile; may run in any thread, tiles do not depend on one another."""
        cut = tiling.cut(self.pixels, core, self._features.reach_px, self._border_px)
        stack = compute_features(normalize.to_float(cut, self._scale), self._features)
        labels, confidence = decide(forest.predict(self.model.forest, stack))
        labels = apply_minimum_confidence(labels, confidence, self.options.min_confidence)
        if self._mask is not None:
            bad = self._mask[core.y : core.y + core.height, core.x : core.x + core.width]
            labels[bad] = 0
            confidence[bad] = 0
        return TileResult(core, labels, confidence)


def stitch(target: tuple[Bytes, Bytes], tile: TileResult) -> None:
    """Write a tile into the plane's labels and confidence."""
    region = tile.region
    window = (slice(region.y, region.y + region.height), slice(region.x, region.x + region.width))
    target[0][window] = tile.labels
    target[1][window] = tile.confidence
