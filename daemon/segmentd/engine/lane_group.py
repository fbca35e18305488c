"""Several devices of a machine as one lane: a plane goes to whichever is free."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import DeviceState, TileListener
from segmentd.engine.scoring import ScoredPart
from segmentd.engine.segmenter import BandResult
from segmentd.engine.source import PlaneSource
from segmentd.errors import SegmentdError
from segmentd.records import ModelCard, SegmentOptions


class LaneGroup:
    """Lanes of several devices that share one CPU lane.

    Parameters
    ----------
    lanes : list of DeviceLane
        At least one.
    cpu : CpuLane
        The one that all of them use.
    """

    def __init__(self, lanes: list[DeviceLane], cpu: CpuLane) -> None:
        self.name = lanes[0].name
        self._lanes = lanes
        self._cpu = cpu
        self._lock = threading.Lock()
        self._in_flight = [0] * len(lanes)

    def load(self, path: Path) -> ModelCard:
        """As `DeviceLane.load`, for every device."""
        card = self._cpu.load(path)
        for lane in self._lanes:
            lane.bring(path)
        return card

    def unload(self, path: Path) -> None:
        """As `DeviceLane.unload`, for every device."""
        self._cpu.unload(path)
        for lane in self._lanes:
            lane.forget_unloaded()

    def pin(self, path: Path) -> None:
        """Keep a model on every device that can; what the last one says counts where none can."""
        faults = []
        for lane in self._lanes:
            try:
                lane.pin(path)
            except SegmentdError as error:
                faults.append(error)
        if len(faults) == len(self._lanes):
            raise faults[-1]

    def device_of(self, path: Path) -> str:
        """The first device that has the model, else the CPU."""
        devices = (lane.device_of(path) for lane in self._lanes)
        return next((name for name in devices if name != self._cpu.name), self._cpu.name)

    def at_hand(self, path: Path) -> bool:
        """Whether any device has the model."""
        return any(lane.at_hand(path) for lane in self._lanes)

    def tidy(self) -> None:
        """Give memory back where that is due."""
        for lane in self._lanes:
            lane.tidy()

    def segment(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        on_tile: TileListener | None = None,
        digest: str | None = None,
    ) -> Iterator[BandResult]:
        """As `DeviceLane.segment`, on the device with the fewest planes; of equals one that has the model."""
        with self._lock:
            number = min(
                range(len(self._lanes)),
                key=lambda i: (self._in_flight[i], not self._lanes[i].at_hand(path), i),
            )
            self._in_flight[number] += 1
        try:
            yield from self._lanes[number].segment(path, source, options, channels, on_tile, digest)
        finally:
            with self._lock:
                self._in_flight[number] -= 1

    def scores(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        digest: str | None = None,
    ) -> Iterator[ScoredPart]:
        """As `DeviceLane.scores`."""
        return self._lanes[0].scores(path, source, options, channels, digest)

    def devices(self) -> list[DeviceState]:
        """All devices, then the CPU with the first reason there is for using it."""
        states = [lane.devices() for lane in self._lanes]
        cpu = next((state[-1] for state in states if state[-1].reason), states[0][-1])
        return [*(state[0] for state in states), cpu]

    def work_since(self) -> float | None:
        """When the oldest piece of work on any device was begun."""
        begun = (lane.work_since() for lane in self._lanes)
        return min((start for start in begun if start is not None), default=None)

    def abandon(self) -> None:
        """Give up all planes."""
        self._cpu.abandon()

    def close(self) -> None:
        """Stop; tiles in work finish first."""
        for lane in self._lanes:
            lane.give_back()
        self._cpu.close()
