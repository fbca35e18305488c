"""A lane for a device that may run out of memory or get lost; the CPU takes over what it cannot do.

Nothing is lost on the way: a batch that failed goes back to what is left of the plane. Every result names
the devices that made it, and why not the preferred one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segmentd import telemetry
from segmentd.engine.activity import Activity
from segmentd.engine.crf_job import CrfJob
from segmentd.engine.device import Device, DeviceLostError, DeviceOutOfMemoryError, DeviceTile
from segmentd.engine.ladder import BackOff, Fit
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import DeviceState, TileListener, strips
from segmentd.engine.loaded import DeepJob, ForestJob, Job, LoadedForest
from segmentd.engine.predictor import Predictor
from segmentd.engine.scoring import ScoredPart
from segmentd.engine.segmenter import Band, BandResult, TileResult
from segmentd.engine.source import PlaneSource
from segmentd.errors import Reason, SegmentdError
from segmentd.records import ModelCard, Region, SegmentOptions

_COMPUTED_BY_CPU: dict[type, str] = {CrfJob: "conditional random fields", DeepJob: "deep features"}
_log = telemetry.get_logger(__name__)


class _UseCpuError(Exception):
    """The device cannot be used now; the message says why."""


@dataclass
class _Resident:
    """A model and how it fares on the device."""

    fit: Fit
    back_off: BackOff
    loaded: bool = False


class _Trail:
    """Which devices computed a plane so far, and why not the preferred one alone."""

    def __init__(self) -> None:
        self.devices: set[str] = set()
        self.reason = ""

    def note(self, device: str, reason: str = "") -> None:
        self.devices.add(device)
        self.reason = reason or self.reason


class DeviceLane:
    """Computes on a device, and on the CPU what the device cannot do at the moment.

    Parameters
    ----------
    device : Device
        The preferred one.
    cpu : CpuLane
        The other one; also loads the models.
    required : bool
        Refuse to compute on the CPU: planes end with DEVICE_UNAVAILABLE instead.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        device: Device,
        cpu: CpuLane,
        required: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = device.name
        self._device = device
        self._cpu = cpu
        self._required = required
        self._clock = clock
        self._activity = Activity(clock)
        # One thread at a time may use the device and what is known of it.
        self._turn = threading.Lock()
        self._open = False
        self._back_off = BackOff()
        self._residents: dict[Predictor, _Resident] = {}

    def load(self, path: Path) -> ModelCard:
        """As `CpuLane.load`; the model is brought to the device, too, if that can be used."""
        card = self._cpu.load(path)
        loaded = self._cpu.model(path)
        if not isinstance(loaded, LoadedForest):
            return card
        model = loaded.predictor
        with self._turn:
            self._forget_unloaded()
            resident = self._resident(model)
            if not self._why_not(resident):
                try:
                    self._bring(model, resident)
                except DeviceOutOfMemoryError as error:
                    self._out_of_memory(resident, error, [], may_cut=False)
                except DeviceLostError as error:
                    self._lost(error)
        return card

    def unload(self, path: Path) -> None:
        """As `CpuLane.unload`."""
        self._cpu.unload(path)
        with self._turn:
            self._forget_unloaded()

    def segment(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        on_tile: TileListener | None = None,
        digest: str | None = None,
    ) -> Iterator[BandResult]:
        """As `CpuLane.segment`.

        Raises
        ------
        SegmentdError
            DEVICE_UNAVAILABLE where the device is required and cannot be used.
        """
        began = time.perf_counter()
        job = self._cpu.job(path, source, options, channels, digest)
        trail = _Trail()
        for strip in strips(job, lambda band: self._tiles(job, band, trail), on_tile):
            seconds = time.perf_counter() - began
            devices = "+".join(name for name in (self.name, self._cpu.name) if name in trail.devices)
            yield replace(strip, compute_seconds=seconds, device=devices, device_reason=trail.reason)
            began = time.perf_counter()

    def scores(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        digest: str | None = None,
    ) -> Iterator[ScoredPart]:
        """As `CpuLane.scores`, on the CPU; DEVICE_UNAVAILABLE where the device is required."""
        self._turn_to_cpu(_Trail(), f"{self.name} computes no scores in this version")
        yield from self._cpu.scores(path, source, options, channels, digest)

    def devices(self) -> list[DeviceState]:
        """The device, and the CPU beside it, with the reason why that is used now."""
        device = DeviceState(self.name, self._device.display_name, 1)
        return [device, *(replace(cpu, reason=self._back_off.reason) for cpu in self._cpu.devices())]

    def work_since(self) -> float | None:
        """When the oldest piece of work on either device was begun, on the monotonic clock."""
        begun = (self._activity.oldest(), self._cpu.work_since())
        return min((start for start in begun if start is not None), default=None)

    def abandon(self) -> None:
        """Give up all planes: they end with SHUTTING_DOWN after the batches in work."""
        self._cpu.abandon()

    def close(self) -> None:
        """Stop; tiles in work finish first."""
        self._cpu.close()

    def _tiles(self, job: Job, band: Band, trail: _Trail) -> Iterator[TileResult]:
        """The tiles of a band as they are done, on the device while that can be used."""
        if not isinstance(job, ForestJob):
            what = _COMPUTED_BY_CPU.get(type(job), "imported networks")
            self._turn_to_cpu(trail, f"{self.name} computes no {what} in this version")
            yield from self._cpu.tiles(job.work(band))
            return
        left = deque(job.tiles(band))
        while left:
            self._cpu.check_going_on()
            try:
                done = self._try_batch(job, band, left)
            except _UseCpuError as error:
                self._turn_to_cpu(trail, str(error))
                # Not all that is left: the device may be back soon.
                cores = [left.popleft() for _ in range(min(len(left), 4 * self._cpu.threads))]
                yield from self._cpu.tiles(job.pieces(band, cores))
            else:
                if done:
                    trail.note(self.name)
                yield from done

    def _turn_to_cpu(self, trail: _Trail, why: str) -> None:
        if self._required:
            raise SegmentdError(
                Reason.DEVICE_UNAVAILABLE,
                f"{why}, and device.require_gpu forbids the CPU; tried again later",
                field="device.require_gpu",
            )
        trail.note(self._cpu.name, f"{why}; computed on the CPU")

    def _try_batch(self, job: ForestJob, band: Band, left: deque[Region]) -> list[TileResult]:
        """Compute the next batch on the device; where that fails it is left again, and nothing is returned.

        Raises
        ------
        _UseCpuError
            The device is not to be tried now.
        """
        with self._turn:
            resident = self._resident(job.predictor)
            why_not = self._why_not(resident)
            if why_not:
                raise _UseCpuError(why_not)
            resident.fit.grow(self._clock())
            batch = resident.fit.take(left, job.seamless)
            try:
                with self._activity.piece():
                    self._bring(job.predictor, resident)
                    tiles = [_checked(tile) for tile in self._device.run(job, band, batch)]
            except DeviceOutOfMemoryError as error:
                left.extendleft(reversed(batch))
                self._out_of_memory(resident, error, batch, job.seamless)
            except DeviceLostError as error:
                left.extendleft(reversed(batch))
                self._lost(error)
            else:
                self._back_off.worked()
                resident.back_off.worked()
                return tiles
        return []

    def _bring(self, model: Predictor, resident: _Resident) -> None:
        """Have the device open and the model on it."""
        if not self._open:
            self._device.open()
            self._open = True
        if not resident.loaded:
            self._device.load(model)
            resident.loaded = True

    def _why_not(self, resident: _Resident) -> str:
        """Why the device is not to be tried now for a model; empty where it is."""
        now = self._clock()
        for back_off in (self._back_off, resident.back_off):
            if not back_off.may_try(now):
                return f"{self.name} {back_off.reason}"
        return ""

    def _out_of_memory(
        self, resident: _Resident, error: DeviceOutOfMemoryError, batch: list[Region], may_cut: bool
    ) -> None:
        now = self._clock()
        if error.batch and resident.fit.shrink(now, batch, may_cut):
            _log.info("the device takes less at once", device=self.name, why=error, batch=resident.fit.batch)
            return
        resident.back_off.failed(now, f"is out of memory ({error})")
        _log.warning("the CPU takes over a model", device=self.name, why=error)

    def _lost(self, error: DeviceLostError) -> None:
        """Everything on the device is gone, other models too."""
        self._back_off.failed(self._clock(), f"was lost ({error})")
        self._open = False
        for resident in self._residents.values():
            resident.loaded = False
        _log.warning("the CPU takes over from a device", device=self.name, why=error)

    def _resident(self, model: Predictor) -> _Resident:
        return self._residents.setdefault(model, _Resident(Fit(self._device.max_batch), BackOff()))

    def _forget_unloaded(self) -> None:
        """Take off the device what the CPU lane has forgotten."""
        kept = {model.predictor for model in self._cpu.models() if isinstance(model, LoadedForest)}
        for model in self._residents.keys() - kept:
            if self._residents.pop(model).loaded:
                self._device.unload(model)


def _checked(tile: DeviceTile) -> TileResult:
    """A tile with confidence in whole percent; values that are not numbers are a fault of the device."""
    if not np.isfinite(tile.confidence).all():
        raise DeviceLostError("it returned values that are not numbers")
    return TileResult(tile.region, tile.labels, np.rint(tile.confidence).astype(np.uint8))
