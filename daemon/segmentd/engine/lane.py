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
from segmentd.engine.loaded import Job, Loaded, make_ready
from segmentd.engine.segmenter import Band, BandResult, TileResult
from segmentd.engine.shelves import Shelves, shelf_rows
from segmentd.engine.source import ArraySource, PlaneSource
from segmentd.errors import Reason, SegmentdError
from segmentd.models import files
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
        self._models: dict[Path, list[Loaded]] = {}
        self._lock = threading.Lock()

    def load(self, path: Path) -> ModelCard:
        """Load the model file at `path` and warm it up; replaces what was loaded from there before.

        Raises
        ------
        SegmentdError
            MODEL_NOT_FOUND, MODEL_UNUSABLE or MISSING_EXTRA; what was loaded before stays loaded.
        """
        model = make_ready(files.load(path), self.threads)
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
        job = model.job(source, channels, options)
        for strip in job.arrange(self._strips(job, on_tile)):
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
            _image_of(strips),
        )

    def _strips(self, job: Job, on_tile: TileListener | None) -> Iterator[BandResult]:
        for band in one_ahead(lambda rows: job.read(*rows), job.bands()):
            shelves = Shelves(band, job.source.shape[2], shelf_rows(band, job.tile_px))
            for tile in self._tiles(job, band):
                if on_tile is not None:
                    on_tile(tile)
                yield from shelves.put(tile)

    def _tiles(self, job: Job, band: Band) -> Iterator[TileResult]:
        """The tiles of a band as they are done."""
        waiting: set[Future[list[TileResult]]] = set()
        try:
            for work in job.work(band):
                waiting.add(self._pool.submit(work))
                # A few tiles ahead keep every thread busy; more would only hold memory.
                if len(waiting) >= 2 * self.threads:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Stop the threads; tiles in work finish first."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _image_of(strips: list[BandResult]) -> npt.NDArray[np.generic] | None:
    images = [strip.image for strip in strips if strip.image is not None]
    return np.concatenate(images, axis=1) if images else None
