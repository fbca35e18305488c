"""A pipeline on a bench: real journal, store, lane and decoder, and faults on demand."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from segmentd.engine.lane import CpuLane
from segmentd.engine.scheduler import Scheduler
from segmentd.engine.slot import Slot
from segmentd.ingest.folder import FoundFile
from segmentd.models.registry import Registry
from segmentd.pipeline import Engine, Pipeline
from segmentd.records import Fault, FileStamp, ResultEvent, SegmentationState, WatchSpec
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.workers import WorkerPool

from . import tiny_model

PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
Act = Callable[[], None]


def found_file(path: Path) -> FoundFile:
    """A file of a watch's folder as it is handed over."""
    stat = path.stat()
    stamp = FileStamp(stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev, stat.st_ctime_ns)
    return FoundFile(path.name.encode(), bytes(path), stamp, time.monotonic())


def write_image(path: Path, pixels: Any, **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pixels, **options)
    return path


class Hooks:
    """Faults on demand: each list holds what the next calls do, before the real thing."""

    def __init__(self) -> None:
        self.pool: list[Act] = []
        self.lane: list[Act] = []
        self.commit: list[Act] = []
        self.record: list[Act] = []

    def before(self, acts: list[Act], call: Callable[..., Any]) -> Callable[..., Any]:
        def hooked(*args: Any, **options: Any) -> Any:
            if acts:
                acts.pop(0)()
            return call(*args, **options)

        return hooked


class Bench:
    """One pipeline and what is around it."""

    def __init__(self, folder: Path, pool: WorkerPool, lane: CpuLane) -> None:
        self.folder = folder
        (folder / "hot").mkdir()
        tiny_model.save(folder / "models" / "cells.segmodel")
        self.spec = WatchSpec("hot", folder / "hot", "cells", folder / "results")
        self.journal = Journal.open(folder / "journal")
        self.held: list[str] = []
        self.reason = ""
        self.while_held: Act = lambda: None
        self.registry = Registry(folder / "models", lane.load, lane.unload)
        self.scheduler = Scheduler(1)
        engine = Engine(self.registry, lane, self.scheduler)
        self.feed = Feed(self.journal)
        self.pipeline = Pipeline(self.spec, engine, pool, self.journal, self.feed, self.hold)

    async def process(self, found: FoundFile) -> None:
        """Process a file as a watch does: with a slot, which nobody keeps in the end."""
        slot = Slot(self.scheduler, "hot", 0)
        await slot.acquire()
        try:
            await self.pipeline.process(found, slot, self.spec.model)
            assert self.scheduler.in_flight == 1
        finally:
            slot.release()
        assert self.scheduler.in_flight == 0

    def hold(self, why: str) -> None:
        self.reason = why
        if why:
            self.held.append(why)
            self.while_held()

    def found(self, name: str = "a.tif", **changes: Any) -> FoundFile:
        file = found_file(self.folder / "hot" / name)
        return dataclasses.replace(file, **{"relative": name.encode(), **changes})

    def write(self, name: str = "a.tif", pixels: Any = PIXELS, **options: Any) -> Path:
        return write_image(self.folder / "hot" / name, pixels, **options)

    def events(self) -> list[ResultEvent]:
        return self.journal.events(0, 100)

    def the_fault(self) -> Fault:
        (event,) = self.events()
        assert event.segmentation.state is SegmentationState.FAILED
        assert event.segmentation.fault is not None
        return event.segmentation.fault

    def results(self) -> list[str]:
        results = self.spec.results
        return sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file())
