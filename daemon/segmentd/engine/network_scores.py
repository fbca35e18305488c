"""Class probabilities of rectangles of a plane, by a network that knows tiles only."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

import numpy as np

from segmentd.compute import fixed_tiles, network
from segmentd.compute.fixed_tiles import Span
from segmentd.engine.segmenter import Band
from segmentd.engine.source import PlaneSource
from segmentd.records import Region

# Rectangles overlap; a tile that was just computed is wanted again by the next one, and by the row below.
KEPT_BYTES = 256 << 20


class Runtime(Protocol):
    """A network in memory."""

    spec: network.NetworkSpec

    def scores(self, tiles: network.Floats) -> network.Floats:
        """Scores of tiles."""


class NetworkScores:
    """Gives rectangles of a plane; tiles lie as they do for labels.

    Parameters
    ----------
    runtime : Runtime
        What to compute.
    source : PlaneSource
        The plane.
    channels : slice
        The channels that the network uses, in its order.
    rows, columns : list of Span
        The tiles.
    """

    def __init__(
        self, runtime: Runtime, source: PlaneSource, channels: slice, rows: list[Span], columns: list[Span]
    ) -> None:
        self._runtime = runtime
        self.source = source
        self._channels = channels
        self._rows, self._columns = rows, columns
        # The network takes one call at a time anyway: who waits here finds the tile made.
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], network.Floats] = OrderedDict()
        self._kept_bytes = 0

    def read(self, start: int, stop: int) -> Band:
        """Read the rows of all tiles that answer for any of rows start..stop-1."""
        tiles = _answering(self._rows, start, stop)
        low = max(0, tiles[0].start)
        high = min(self.source.shape[1], tiles[-1].start + tiles[-1].size)
        return Band(start, stop, low, self.source.rows(low, high), self._channels)

    def scores(self, band: Band, region: Region) -> network.Floats:
        """Probabilities (K, h, w) of a rectangle of the plane; `band` was read for its rows at least."""
        found = np.empty((self._runtime.spec.outputs, region.height, region.width), np.float32)
        for rows in _answering(self._rows, region.y, region.y + region.height):
            y, own_y = _common(rows, region.y, region.height)
            for columns in _answering(self._columns, region.x, region.x + region.width):
                x, own_x = _common(columns, region.x, region.width)
                found[:, y, x] = self._tile(band, rows, columns)[:, own_y, own_x]
        return found

    def _tile(self, band: Band, rows: Span, columns: Span) -> network.Floats:
        """Probabilities (K, h, w) of the pixels that a tile answers for."""
        place = (rows.first, columns.first)
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
            made = self._compute(band, rows, columns)
            self._kept[place] = made
            self._kept_bytes += made.nbytes
            while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return made

    def _compute(self, band: Band, rows: Span, columns: Span) -> network.Floats:
        spec = self._runtime.spec
        pixels = fixed_tiles.cut(band.used, rows, columns, band.low, self.source.shape[1])
        scores = self._runtime.scores(network.prepare(pixels, spec.scale_by_bit_depth)[None])[0]
        y, x = rows.first - rows.start, columns.first - columns.start
        own = scores[y : y + rows.stop - rows.first, x : x + columns.stop - columns.first]
        return network.probabilities(own, spec.softmax)


def _answering(spans: list[Span], start: int, stop: int) -> list[Span]:
    return [span for span in spans if span.first < stop and span.stop > start]


def _common(span: Span, start: int, length: int) -> tuple[slice, slice]:
    """What a tile and a rectangle share along an axis: counted from the rectangle, and from the tile."""
    first, stop = max(span.first, start), min(span.stop, start + length)
    return slice(first - start, stop - start), slice(first - span.first, stop - span.first)
