"""One lane for each device. The CPU lane is a pool of threads over tiles; the kernels release the GIL."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentd.engine.segmenter import PlaneJob, PlaneResult, TileResult, stitch
from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle
from segmentd.records import ModelCard, SegmentOptions

TileListener = Callable[[TileResult], None]
WARM_UP_PX = 64


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
        self._models: dict[Path, bundle.Model] = {}
        self._lock = threading.Lock()

    def load(self, path: Path) -> ModelCard:
        """Load the model file at `path` and warm it up; replaces what was loaded from there before.

        Raises
        ------
        SegmentdError
            MODEL_NOT_FOUND or MODEL_UNUSABLE; what was loaded before stays loaded.
        """
        model = bundle.load(path)
        pixels = np.zeros((model.card.channel_count, WARM_UP_PX, WARM_UP_PX), model.card.pixel_type.value)
        job = PlaneJob(model, pixels, SegmentOptions())
        for core in job.tiles():
            job.run_tile(core)
        with self._lock:
            self._models[path] = model
        return model.card

    def unload(self, path: Path) -> None:
        """Forget the model at `path`; planes in work keep it to their end."""
        with self._lock:
            self._models.pop(path, None)

    def segment(
        self,
        path: Path,
        pixels: npt.NDArray[np.generic],
        options: SegmentOptions,
        on_tile: TileListener | None = None,
    ) -> PlaneResult:
        """Segment one plane; blocks until it is done.

        Parameters
        ----------
        path : Path
            A loaded model.
        pixels : array (C, Y, X)
            The channels that the model uses, in its pixel type.
        options : SegmentOptions
            Border, tile and minimum confidence.
        on_tile : callable, optional
            Called in this thread with each tile as it is done, in no particular order. What it raises
            ends the plane.
        """
        with self._lock:
            model = self._models.get(path)
        if model is None:
            raise SegmentdError(Reason.MODEL_UNUSABLE, f"{path}: the model is not loaded; load it first")
        started = time.perf_counter()
        job = PlaneJob(model, pixels, options)
        shape = pixels.shape[1:]
        target = (np.empty(shape, np.uint8), np.empty(shape, np.uint8))
        self._run(job, target, on_tile)
        return PlaneResult(*target, job.masked_pixels, time.perf_counter() - started)

    def _run(
        self,
        job: PlaneJob,
        target: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
        on_tile: TileListener | None,
    ) -> None:
        cores = job.tiles()
        waiting: set[Future[TileResult]] = set()
        try:
            for core in cores:
                waiting.add(self._pool.submit(job.run_tile, core))
                # A few tiles ahead keep every thread busy; more would only hold memory.
                if len(waiting) >= 2 * self.threads:
                    waiting = self._take(waiting, target, on_tile)
            while waiting:
                waiting = self._take(waiting, target, on_tile)
        finally:
            for future in waiting:
                future.cancel()

    @staticmethod
    def _take(
        waiting: set[Future[TileResult]],
        target: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
        on_tile: TileListener | None,
    ) -> set[Future[TileResult]]:
        done, rest = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            tile = future.result()
            stitch(target, tile)
            if on_tile is not None:
                on_tile(tile)
        return rest

    def close(self) -> None:
        """Stop the threads; tiles in work finish first."""
        self._pool.shutdown(wait=True, cancel_futures=True)
