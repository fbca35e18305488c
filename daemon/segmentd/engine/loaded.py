"""What a lane needs of a loaded model, be it a forest or a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from segmentd.compute.deep import Extractor
from segmentd.compute.fast_features import Floats
from segmentd.engine.deep_predictor import DeepPredictor
from segmentd.engine.device import BatchTile, DeviceModel
from segmentd.engine.network_job import NetworkJob, NetworkRuntime
from segmentd.engine.offload import Offload
from segmentd.engine.predictor import Predictor, make_predictor
from segmentd.engine.segmenter import Band, BandResult, PlaneJob, ScoredPlane, TileResult
from segmentd.engine.source import PlaneSource, bands
from segmentd.engine.volume_job import VolumeJob
from segmentd.models import trial
from segmentd.models.bundle import Model
from segmentd.models.deep_features import for_model, is_deep
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


class ModelJob(Job, Protocol):
    """A plane that a model computes."""

    def scored(self) -> ScoredPlane:
        """The probabilities of classes; BAD_FIELD where the model has none of a plane by itself."""


class Loaded(Protocol):
    """A model in memory."""

    card: ModelCard

    @property
    def on_device(self) -> DeviceModel | None:
        """What a device computes; None where it was not kept."""

    def job(
        self,
        source: PlaneSource,
        channels: slice,
        options: SegmentOptions,
        offload: Offload | None = None,
    ) -> ModelJob:
        """Make a plane ready to be computed; what `offload` can do, it does."""


class TileJob(PlaneJob):
    """A plane for any forest: each tile is a piece of work."""

    def bands(self) -> Iterator[tuple[int, int]]:
        """As the source gives them, as far as tiles may begin there."""
        return bands(self.source, self.predictor.step_px)

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

    def scored(self) -> ScoredPlane:
        """The plane itself."""
        return self

    def _one(self, band: Band, core: Region) -> list[TileResult]:
        return [self.run_tile(band, core)]


class ForestJob(TileJob):
    """A plane for a forest on filters; `offload` computes probabilities, if given."""

    predictor: Predictor

    def __init__(
        self,
        predictor: Predictor,
        source: PlaneSource,
        channels: slice,
        options: SegmentOptions,
        offload: Offload | None = None,
    ) -> None:
        super().__init__(predictor, source, channels, options)
        self._offload = offload

    def score_tile(self, band: Band, core: Region) -> Floats:
        """Probabilities (K, h, w) of one tile."""
        if self._offload is None:
            return super().score_tile(band, core)
        tile = BatchTile(self.around(band, core), self.scale, self.level)
        return self._offload.scores(self.predictor, tile)


class DeepJob(TileJob):
    """A plane for a forest on deep features."""


class LoadedForest:
    """A forest on filters in memory."""

    def __init__(self, model: Model) -> None:
        self.card = model.card
        self.predictor = self.on_device = make_predictor(model)

    def job(
        self,
        source: PlaneSource,
        channels: slice,
        options: SegmentOptions,
        offload: Offload | None = None,
    ) -> ForestJob:
        """Make a plane ready to be computed."""
        return ForestJob(self.predictor, source, channels, options, offload)


class LoadedDeepForest:
    """A forest on deep features in memory."""

    def __init__(self, model: Model, extractor: Extractor) -> None:
        self.card = model.card
        self._predictor = DeepPredictor(model, extractor)
        self.on_device = self._predictor.on_device

    def job(
        self,
        source: PlaneSource,
        channels: slice,
        options: SegmentOptions,
        offload: Offload | None = None,
    ) -> DeepJob:
        """Make a plane ready to be computed."""
        predictor = self._predictor if offload is None else self._predictor.through(offload.evaluate)
        return DeepJob(predictor, source, channels, options)


class LoadedNetwork(NetworkRuntime):
    """A network in memory."""

    def job(
        self,
        source: PlaneSource,
        channels: slice,
        options: SegmentOptions,
        offload: Offload | None = None,
    ) -> NetworkJob:
        """Make a plane ready to be computed."""
        kind = VolumeJob if self.spec.tile_depth else NetworkJob
        runtime = self if offload is None else self.through(offload.evaluate)
        return kind(runtime, source, channels, options)


def make_ready(
    model: AnyModel, threads: int, vgg19_weights: Path | None = None, for_devices: bool = False
) -> Loaded:
    """Bring a model to the CPU; a network is tried in a process of its own before.

    `vgg19_weights` is the file of what deep features are computed with; Keras' cache for None. With
    `for_devices` what these need of a network is kept.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE, MISSING_EXTRA.
    """
    if isinstance(model, Model):
        if is_deep(model):
            return LoadedDeepForest(model, for_model(model, vgg19_weights, threads))
        return LoadedForest(model)
    trial.run(model)
    return LoadedNetwork(model, threads, for_devices)
