"""Planes of a stack through a network for volumes: planes that lie in one tile are computed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from segmentd.compute import fixed_tiles
from segmentd.compute.fixed_tiles import Span
from segmentd.engine.network_job import NetworkJob, NetworkRuntime
from segmentd.engine.segmenter import Band, TileResult
from segmentd.engine.source import PlaneSource, Stack, StackPlane
from segmentd.records import SegmentOptions


@dataclass(frozen=True)
class VolumeBand(Band):
    """Rows of a plane; `volume` (z, C, h, X) are those of all planes of a tile, None if results are kept."""

    volume: npt.NDArray[np.generic] | None = None


class VolumeJob(NetworkJob):
    """One plane of a stack made ready for a network that looks at several.

    The first plane that a layer of tiles answers for has them computed; for the others the results are kept
    in the stack. A plane without a stack is one of a single plane, repeated above and below.
    """

    def __init__(
        self, runtime: NetworkRuntime, source: PlaneSource, channels: slice, options: SegmentOptions
    ) -> None:
        super().__init__(runtime, source, channels, options)
        if isinstance(source, StackPlane):
            self._stack, self._z = source.stack, source.z
        else:
            self._stack, self._z = Stack(1, lambda _: source), 0
        layers = fixed_tiles.spans(self._stack.depth, self._spec.tile_depth, self._spec.border_planes)
        self._layer = next(layer for layer in layers if layer.first <= self._z < layer.stop)
        if self._z == self._layer.first:
            self._stack.forget(below=self._layer.start)

    def read(self, start: int, stop: int) -> VolumeBand:
        """Read the rows that a row of tiles needs, of all planes where they are not computed yet."""
        band = super().read(start, stop)
        kept = (self._z, start, 0) in self._stack.results
        volume = None if kept else self._volume(band.low, band.low + band.window.shape[1])
        return VolumeBand(band.start, band.stop, band.low, band.window, band.channels, volume)

    def work(self, band: Band) -> Iterator[Callable[[], list[TileResult]]]:
        """The tiles of a band in batches; those that are kept all at once."""
        if isinstance(band, VolumeBand) and band.volume is None:
            yield partial(self._kept, band)
        else:
            yield from super().work(band)

    def _volume(self, low: int, high: int) -> npt.NDArray[np.generic]:
        """Rows of the layer's planes (z, C, h, X); beyond the stack its first and last plane are repeated."""
        layer, last = self._layer, self._stack.depth - 1
        wanted = [min(max(z, 0), last) for z in range(layer.start, layer.start + layer.size)]
        planes = {z: self._stack.plane(z).rows(low, high)[self._channels] for z in set(wanted)}
        return np.stack([planes[z] for z in wanted])

    def _kept(self, band: Band) -> list[TileResult]:
        results = self._stack.results
        return [self._masked(band, results.pop((self._z, band.start, span.first))) for span in self._columns]

    def _run(self, band: Band, columns: list[Span]) -> list[TileResult]:
        if not isinstance(band, VolumeBand) or band.volume is None:
            raise ValueError("a band without its volume")
        rows, layer = self._rows[band.start], self._layer
        depth, channels, *_ = band.volume.shape
        flat = band.volume.reshape(depth * channels, *band.volume.shape[2:])
        tiles = []
        for column in columns:
            tile = fixed_tiles.cut(flat, rows, column, band.low, self.source.shape[1])
            tiles.append(np.moveaxis(tile.reshape(depth, channels, *tile.shape[1:]), 1, 0))
        scores = self._scores(tiles)
        own = []
        for number, column in enumerate(columns):
            for z in range(layer.first, layer.stop):
                found = self._result(rows, column, scores[number, z - layer.start], band.window.dtype)
                if z == self._z:
                    own.append(self._masked(band, found))
                else:
                    self._stack.results[z, band.start, column.first] = found
        return own
