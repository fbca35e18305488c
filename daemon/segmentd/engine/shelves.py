"""Joins tiles to strips of whole rows, given out from the top as soon as their last tile is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from segmentd.engine.segmenter import Band, BandResult, TileResult
from segmentd.engine.source import BAND_STEP_ROWS


def shelf_rows(band: Band, tile_px: int) -> int:
    """Rows of a strip: a row of tiles where results can be written by it, else the whole band."""
    return tile_px if tile_px % BAND_STEP_ROWS == 0 else band.stop - band.start


def in_steps(strips: Iterable[BandResult], height: int) -> Iterator[BandResult]:
    """The strips of a plane of `height` rows, cut anew where results can be written: at full steps.

    Strips that end there already go through as they are; none is held longer than until the next.
    """
    rest: BandResult | None = None
    for strip in strips:
        joined = strip if rest is None else _joined(rest, strip)
        end = joined.first_row + len(joined.labels)
        full = end if end == height else end - end % BAND_STEP_ROWS
        ready, rest = _split(joined, full)
        if ready is not None:
            yield ready
    if rest is not None:
        yield rest


def _joined(upper: BandResult, lower: BandResult) -> BandResult:
    return BandResult(
        upper.first_row,
        np.concatenate([upper.labels, lower.labels]),
        np.concatenate([upper.confidence, lower.confidence]),
        np.concatenate([upper.pixels, lower.pixels], axis=1),
        upper.masked_pixels + lower.masked_pixels,
        upper.compute_seconds + lower.compute_seconds,
        None
        if upper.image is None or lower.image is None
        else np.concatenate([upper.image, lower.image], axis=1),
    )


def _split(strip: BandResult, row: int) -> tuple[BandResult | None, BandResult | None]:
    """What lies above a row of the plane, and what is left; counts and times go with the upper part."""
    rows = row - strip.first_row
    if rows <= 0:
        return None, strip
    if rows == len(strip.labels):
        return strip, None
    upper = _part(strip, slice(0, rows))
    lower = replace(_part(strip, slice(rows, None)), first_row=row, masked_pixels=0, compute_seconds=0.0)
    return upper, lower


def _part(strip: BandResult, rows: slice) -> BandResult:
    return replace(
        strip,
        labels=strip.labels[rows],
        confidence=strip.confidence[rows],
        pixels=strip.pixels[:, rows],
        image=None if strip.image is None else strip.image[:, rows],
    )


class Shelves:
    """The strips of one band.

    Parameters
    ----------
    band : Band
        Whose tiles come.
    width : int
        Of the plane, in pixels.
    rows : int
        Rows of a strip; the last one may have fewer. No tile lies in two strips.
    """

    def __init__(self, band: Band, width: int, rows: int) -> None:
        self._band = band
        self._rows = rows
        height = band.stop - band.start
        self._labels = np.empty((height, width), np.uint8)
        self._confidence = np.empty((height, width), np.uint8)
        self._image: npt.NDArray[np.generic] | None = None
        self._missing = [min(rows, height - first) * width for first in range(0, height, rows)]
        self._given = 0

    def put(self, tile: TileResult) -> Iterator[BandResult]:
        """Take a tile in; yields the strips that are complete now and have none missing above them."""
        region = tile.region
        first = region.y - self._band.start
        window = (slice(first, first + region.height), slice(region.x, region.x + region.width))
        self._labels[window] = tile.labels
        self._confidence[window] = tile.confidence
        if tile.image is not None:
            if self._image is None:
                self._image = np.empty((len(tile.image), *self._labels.shape), tile.image.dtype)
            self._image[:, *window] = tile.image
        self._missing[first // self._rows] -= region.height * region.width
        while self._given < len(self._missing) and self._missing[self._given] == 0:
            yield self._strip(self._given * self._rows)
            self._given += 1

    def _strip(self, first: int) -> BandResult:
        rows = slice(first, min(first + self._rows, len(self._labels)))
        mask = self._band.mask
        return BandResult(
            self._band.start + first,
            self._labels[rows],
            self._confidence[rows],
            self._band.pixels[:, rows],
            0 if mask is None else int(mask[rows].sum()),
            0.0,
            None if self._image is None else self._image[:, rows],
        )
