"""One lane for each device. The CPU lane is a pool of threads over tiles; the kernels release the GIL."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentd.engine.ahead import one_ahead
from segmentd.engine.predictor import Predictor
from segmentd.engine.segmenter import Band, BandResult, PlaneJob, TileResult
from segmentd.engine.shelves import Shelves, shelf_rows
from segmentd.engine.source import ArraySource, PlaneSource, bands
from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle
from segmentd.records import ModelCard, SegmentOptions
from segmentd.settings.values import usable_cores

TileListener = Callable[[TileResult], None]
WARM_UP_PX = 64
KEPT_VERSIONS = 2


def processor_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class CpuLane:
    """Computes on the CPU with `threads` threads; keeps loaded models in memory."""

    def __init__(self, threads: int | None = None, reason: str = "") -> None:
        self.name = "cpu"
        self.display_name = processor_name()
        self.reason = reason
        self.threads = threads or usable_cores()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="cpu-lane")
        # Newest first; the one before stays for planes that began with it.
        self._models: dict[Path, list[Predictor]] = {}
        self._lock = threading.Lock()

    def load(self, path: Path) -> ModelCard:
        """Load the model file at `path` and warm it up; replaces what was loaded from there before.

        Raises
        ------
        SegmentdError
            MODEL_NOT_FOUND or MODEL_UNUSABLE; what was loaded before stays loaded.
        """
        model = Predictor(bundle.load(path))
        pixels = np.zeros((model.card.channel_count, WARM_UP_PX, WARM_UP_PX), model.card.pixel_type.value)
        job = PlaneJob(model, ArraySource(pixels), slice(None), SegmentOptions())
        band = job.read(0, WARM_UP_PX)
        for core in job.tiles(band):
            job.run_tile(band, core)
        with self._lock:
            self._models[path] = [model, *self._models.get(path, [])[: KEPT_VERSIONS - 1]]
        return model.card

    def unload(self, path: Path) -> None:
        """Forget the model at `path`; planes in work keep it to their end."""
        with self._lock:
            self._models.pop(path, None)

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
            The plane, in the model's pixel type.
        options : SegmentOptions
            Border, tile and minimum confidence.
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
        with self._lock:
            loaded = self._models.get(path, [])
        wanted = [one for one in loaded if digest in (None, one.card.digest)]
        model = wanted[0] if wanted else None
        if model is None:
            raise SegmentdError(Reason.MODEL_UNUSABLE, f"{path}: the model is not loaded; load it first")
        began = time.perf_counter()
        job = PlaneJob(model, source, channels, options)
        for band in one_ahead(lambda rows: job.read(*rows), bands(source)):
            for strip in self._run(job, band, on_tile):
                # What the caller does with a strip does not count.
                yield replace(strip, compute_seconds=time.perf_counter() - began)
                began = time.perf_counter()

    def segment_array(
        self, path: Path, pixels: npt.NDArray[np.generic], options: SegmentOptions
    ) -> BandResult:
        """Segment a plane in memory, array (C, Y, X) of the channels that the model uses."""
        strips = list(self.segment(path, ArraySource(pixels), options))
        if len(strips) == 1:
            return strips[0]
        return BandResult(
            0,
            np.concatenate([strip.labels for strip in strips]),
            np.concatenate([strip.confidence for strip in strips]),
            pixels,
            sum(strip.masked_pixels for strip in strips),
            sum(strip.compute_seconds for strip in strips),
        )

    def _run(self, job: PlaneJob, band: Band, on_tile: TileListener | None) -> Iterator[BandResult]:
        shelves = Shelves(band, job.source.shape[2], shelf_rows(band, job.tile_px))
        for tile in self._tiles(job, band):
            if on_tile is not None:
                on_tile(tile)
            yield from shelves.put(tile)

    def _tiles(self, job: PlaneJob, band: Band) -> Iterator[TileResult]:
        """The tiles of a band as they are done."""
        waiting: set[Future[TileResult]] = set()
        try:
            for core in job.tiles(band):
                waiting.add(self._pool.submit(job.run_tile, band, core))
                # A few tiles ahead keep every thread busy; more would only hold memory.
                if len(waiting) >= 2 * self.threads:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Stop the threads; tiles in work finish first."""
        self._pool.shutdown(wait=True, cancel_futures=True)
