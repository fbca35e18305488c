"""What a lane needs of a loaded model, be it a forest or a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from segmentd.engine.network_job import NetworkJob, NetworkRuntime
from segmentd.engine.predictor import Predictor
from segmentd.engine.segmenter import Band, BandResult, PlaneJob, TileResult
from segmentd.engine.source import PlaneSource, bands
from segmentd.engine.volume_job import VolumeJob
from segmentd.models import trial
from segmentd.models.bundle import Model
from segmentd.models.files import AnyModel
from segmentd.records import ModelCard, Region, SegmentOptions

Work = Callable[[], list[TileResult]]


class Job(Protocol):
    """A plane that is being computed, band by band from the top."""

    source: PlaneSource
    tile_px: int

    def bands(self) -> Iterator[tuple[int, int]]:
        """First and last row (exclusive) of each band."""

    def read(self, start: int, stop: int) -> Band:
        """Read what the band needs."""

    def work(self, band: Band) -> Iterator[Work]:
        """Pieces of work that together make all tiles of a band; any thread may do any of them."""

    def arrange(self, strips: Iterator[BandResult]) -> Iterator[BandResult]:
        """Cut strips anew where results cannot be written as they are."""


class Loaded(Protocol):
    """A model in memory."""

    card: ModelCard

    def job(self, source: PlaneSource, channels: slice, options: SegmentOptions) -> Job:
        """Make a plane ready to be computed."""


class ForestJob(PlaneJob):
    """A plane for a forest: each tile is a piece of work."""

    def bands(self) -> Iterator[tuple[int, int]]:
        """As the source gives them."""
        return bands(self.source)

    def work(self, band: Band) -> Iterator[Work]:
        """One tile each."""
        return self.pieces(band, self.tiles(band))

    def pieces(self, band: Band, cores: Iterable[Region]) -> Iterator[Work]:
        """Pieces of work for some tiles of a band."""
        for core in cores:
            yield partial(self._one, band, core)

    def arrange(self, strips: Iterator[BandResult]) -> Iterator[BandResult]:
        """Bands end where results can be written."""
        return strips

    def _one(self, band: Band, core: Region) -> list[TileResult]:
        return [self.run_tile(band, core)]


class LoadedForest:
    """A forest in memory."""

    def __init__(self, model: Model) -> None:
        self.card = model.card
        self.predictor = Predictor(model)

    def job(self, source: PlaneSource, channels: slice, options: SegmentOptions) -> ForestJob:
        """Make a plane ready to be computed."""
        return ForestJob(self.predictor, source, channels, options)


class LoadedNetwork(NetworkRuntime):
    """A network in memory."""

    def job(self, source: PlaneSource, channels: slice, options: SegmentOptions) -> NetworkJob:
        """Make a plane ready to be computed."""
        kind = VolumeJob if self.spec.tile_depth else NetworkJob
        return kind(self, source, channels, options)


def make_ready(model: AnyModel, threads: int) -> Loaded:
    """Bring a model to the CPU; a network is tried in a process of its own before.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE, MISSING_EXTRA.
    """
    if isinstance(model, Model):
        return LoadedForest(model)
    trial.run(model)
    return LoadedNetwork(model, threads)
