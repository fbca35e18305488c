"""What every lane is, whatever device it computes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segmentd.engine.ahead import one_ahead
from segmentd.engine.device_memory import MemoryState
from segmentd.engine.device_turns import BatchCounts
from segmentd.engine.loaded import Job
from segmentd.engine.scoring import ScoredPart
from segmentd.engine.segmenter import Band, BandResult, TileResult
from segmentd.engine.shelves import Shelves, shelf_rows
from segmentd.engine.source import PlaneSource
from segmentd.records import ModelCard, SegmentOptions

TileListener = Callable[[TileResult], None]


@dataclass(frozen=True)
class DeviceState:
    """A device in use: its name in results, what it is, its threads, why it and not the preferred one.

    What its memory holds, and what it computed so far, where it is no CPU.
    """

    name: str
    display_name: str
    threads: int
    reason: str = ""
    memory: MemoryState | None = None
    counts: BatchCounts | None = None


class Lane(Protocol):
    """What planes go through; see `CpuLane` for the calls."""

    name: str

    def load(self, path: Path) -> ModelCard:
        """Load a model file and warm it up."""

    def unload(self, path: Path) -> None:
        """Forget a model."""

    def pin(self, path: Path) -> None:
        """Keep a loaded model on the device until it is unloaded; DEVICE_UNAVAILABLE where it has no room."""

    def device_of(self, path: Path) -> str:
        """The device that a loaded model is on."""

    def at_hand(self, path: Path) -> bool:
        """Whether a plane of this model could be computed at once, without loading anything."""

    def tidy(self) -> None:
        """Give memory of the device back where that is due; to be called about every second."""

    def segment(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        on_tile: TileListener | None = None,
        digest: str | None = None,
    ) -> Iterator[BandResult]:
        """Segment one plane."""

    def scores(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        digest: str | None = None,
    ) -> Iterator[ScoredPart]:
        """The probabilities that the model gives the classes of one plane."""

    def devices(self) -> list[DeviceState]:
        """The devices in use, the preferred one first."""

    def work_since(self) -> float | None:
        """When the oldest piece of work that is being done was begun, on the monotonic clock."""

    def abandon(self) -> None:
        """Give up all planes: they end with SHUTTING_DOWN after the tiles in work."""

    def close(self) -> None:
        """Stop; tiles in work finish first."""


def strips(
    job: Job, tiles: Callable[[Band], Iterable[TileResult]], on_tile: TileListener | None
) -> Iterator[BandResult]:
    """Strips of a plane from the top, of the `tiles` of each band; the next band is read meanwhile."""
    return job.arrange(_strips(job, tiles, on_tile))


def _strips(
    job: Job, tiles: Callable[[Band], Iterable[TileResult]], on_tile: TileListener | None
) -> Iterator[BandResult]:
    for band in one_ahead(lambda rows: job.read(*rows), job.bands()):
        shelves = Shelves(band, job.source.shape[2], shelf_rows(band, job.tile_px))
        for tile in tiles(band):
            if on_tile is not None:
                on_tile(tile)
            yield from shelves.put(tile)


def whole_plane(pixels: npt.NDArray[np.generic], parts: Iterable[BandResult]) -> BandResult:
    """Join the strips of a plane in memory, array (C, Y, X), to one."""
    strips = list(parts)
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
        strips[-1].device,
        strips[-1].device_reason,
    )


def _image_of(strips: list[BandResult]) -> npt.NDArray[np.generic] | None:
    images = [strip.image for strip in strips if strip.image is not None]
    return np.concatenate(images, axis=1) if images else None
