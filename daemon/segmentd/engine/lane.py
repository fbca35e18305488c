"""One lane for each device. The CPU lane is a pool of threads over tiles; the kernels release the GIL."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from segmentd.compute.postprocessing import CRF
from segmentd.engine.activity import Activity
from segmentd.engine.crf_job import CrfJob
from segmentd.engine.lanes import DeviceState, TileListener, strips, whole_plane
from segmentd.engine.loaded import Job, Loaded, make_ready
from segmentd.engine.offload import Offload
from segmentd.engine.refiner import Refiner
from segmentd.engine.scoring import ScoredPart, pieces
from segmentd.engine.segmenter import BandResult
from segmentd.engine.source import ArraySource, PlaneSource
from segmentd.errors import Reason, SegmentdError
from segmentd.models import files
from segmentd.records import ModelCard, SegmentOptions
from segmentd.settings.values import usable_cores

WARM_UP_PX = 64
KEPT_VERSIONS = 2

T = TypeVar("T")


def processor_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class CpuLane:
    """Computes on the CPU with `threads` threads; keeps loaded models in memory.

    `vgg19_weights` is the file of weights for models of deep features; Keras' cache for None. With
    `for_devices` what devices need of networks is kept, too.
    """

    def __init__(
        self,
        threads: int | None = None,
        reason: str = "",
        vgg19_weights: Path | None = None,
        for_devices: bool = False,
    ) -> None:
        self.name = "cpu"
        self.display_name = processor_name()
        self.reason = reason
        self._vgg19_weights = vgg19_weights
        self._for_devices = for_devices
        self.threads = threads or usable_cores()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="cpu-lane")
        # Newest first; the one before stays for planes that began with it.
        self._models: dict[Path, list[Loaded]] = {}
        self._lock = threading.Lock()
        self._activity = Activity()
        self._abandoned = False
        self.refiner = Refiner(self.threads)

    def load(self, path: Path) -> ModelCard:
        """Load the model file at `path` and warm it up; replaces what was loaded from there before.

        Raises
        ------
        SegmentdError
            MODEL_NOT_FOUND, MODEL_UNUSABLE or MISSING_EXTRA; what was loaded before stays loaded.
        """
        model = make_ready(files.load(path), self.threads, self._vgg19_weights, self._for_devices)
        pixels = np.zeros((model.card.channel_count, WARM_UP_PX, WARM_UP_PX), model.card.pixel_type.value)
        job = model.job(ArraySource(pixels), slice(None), SegmentOptions())
        for rows in job.bands():
            for work in job.work(job.read(*rows)):
                work()
        with self._lock:
            self._models[path] = [model, *self._models.get(path, [])[: KEPT_VERSIONS - 1]]
        return model.card

    def unload(self, path: Path) -> None:
        """Forget the model at `path`; planes in work keep it to their end."""
        with self._lock:
            self._models.pop(path, None)

    def pin(self, path: Path) -> None:
        """Models in memory stay there anyway."""

    def device_of(self, path: Path) -> str:
        """Always the CPU."""
        return self.name

    def at_hand(self, path: Path) -> bool:
        """No model is better than another."""
        return True

    def tidy(self) -> None:
        """Nothing is given back."""

    def segment(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        on_tile: TileListener | None = None,
        digest: str | None = None,
    ) -> Iterator[BandResult]:
        """Segment one plane: yields strips of its rows from the top as they are done.

        The tiles below are in work, and the next band is being read, while the caller has a strip.

        Parameters
        ----------
        path : Path
            A loaded model.
        source : PlaneSource
            The plane, in a pixel type that the model takes.
        options : SegmentOptions
            Border, tile, minimum confidence, post-processing.
        channels : slice
            The channels that the model uses.
        on_tile : callable, optional
            Called in this thread with each tile as it is done, in no particular order. What it raises
            ends the plane.
        digest : str, optional
            Of the model that is meant, where the file may have been loaded anew since; else the newest.

        Raises
        ------
        SegmentdError
            MODEL_UNUSABLE where the model is not loaded; what `source` raises.
        """
        began = time.perf_counter()
        job = self.job(path, source, options, channels, digest)
        for strip in strips(job, lambda band: self.tiles(job.work(band)), on_tile):
            # What the caller does with a strip does not count.
            seconds = time.perf_counter() - began
            yield replace(strip, compute_seconds=seconds, device=self.name, device_reason=self.reason)
            began = time.perf_counter()

    def job(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        digest: str | None = None,
        offload: Offload | None = None,
    ) -> Job:
        """Make a plane ready to be computed; parameters and errors as those of `segment`.

        What `offload` can do, it does.
        """
        model = self.model(path, digest)
        plane = model.job(source, channels, options, offload)
        if (options.postprocessing or model.card.postprocessing) == CRF:
            return CrfJob(plane.scored(), channels, options, offload or self.refiner)
        return plane

    def model(self, path: Path, digest: str | None = None) -> Loaded:
        """The model that was loaded from there, of that digest or the newest; else MODEL_UNUSABLE."""
        with self._lock:
            loaded = self._models.get(path, [])
        wanted = [one for one in loaded if digest in (None, one.card.digest)]
        if not wanted:
            raise SegmentdError(Reason.MODEL_UNUSABLE, f"{path}: the model is not loaded; load it first")
        return wanted[0]

    def models(self) -> list[Loaded]:
        """All models that are loaded, earlier versions too."""
        with self._lock:
            return [one for versions in self._models.values() for one in versions]

    def segment_array(
        self, path: Path, pixels: npt.NDArray[np.generic], options: SegmentOptions
    ) -> BandResult:
        """Segment a plane in memory, array (C, Y, X) of the channels that the model uses."""
        return whole_plane(pixels, self.segment(path, ArraySource(pixels), options))

    def scores(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        digest: str | None = None,
        offload: Offload | None = None,
    ) -> Iterator[ScoredPart]:
        """The probabilities that the model gives the classes of one plane, before any post-processing.

        Parameters as those of `job`; parts come in no particular order.

        Raises
        ------
        SegmentdError
            As `segment`; BAD_FIELD where the model has none of a plane by itself.
        """
        job = self.model(path, digest).job(source, channels, options, offload)
        plane = job.scored()
        for rows in job.bands():
            yield from self.tiles(pieces(plane, plane.read(*rows)))

    def tiles(self, pieces: Iterable[Callable[[], list[T]]]) -> Iterator[T]:
        """Do pieces of work; their tiles come as they are done.

        Raises
        ------
        SegmentdError
            SHUTTING_DOWN after `abandon`.
        """
        waiting: set[Future[list[T]]] = set()
        try:
            for work in pieces:
                self.check_going_on()
                waiting.add(self._pool.submit(self._do, work))
                # A few tiles ahead keep every thread busy; more would only hold memory.
                if len(waiting) >= 2 * self.threads:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            while waiting:
                self.check_going_on()
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            for future in waiting:
                future.cancel()

    def _do(self, work: Callable[[], list[T]]) -> list[T]:
        with self._activity.piece():
            return work()

    def devices(self) -> list[DeviceState]:
        """The CPU."""
        return [DeviceState(self.name, self.display_name, self.threads, self.reason)]

    def work_since(self) -> float | None:
        """When the oldest tile that is being computed was begun, on the monotonic clock."""
        return self._activity.oldest()

    def check_going_on(self) -> None:
        """Raise SHUTTING_DOWN after `abandon`."""
        if self._abandoned:
            raise SegmentdError(Reason.SHUTTING_DOWN, "the daemon is stopping; try again when it is back")

    def abandon(self) -> None:
        """Give up all planes: they end with SHUTTING_DOWN after the tiles in work."""
        self._abandoned = True

    def close(self) -> None:
        """Stop the threads; tiles in work finish first."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.refiner.close()
