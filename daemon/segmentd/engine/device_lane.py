"""A lane for a device that may run out of memory or get lost; the CPU takes over what it cannot do.

Nothing is lost on the way: a batch that failed goes back to what is left of the plane. Every result names
the devices that made it, and why not the preferred one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from segmentd.compute import crf
from segmentd.compute.fast_features import Floats
from segmentd.engine.array_models import ArrayModel
from segmentd.engine.array_turns import ArrayTurns
from segmentd.engine.crf_job import CrfJob
from segmentd.engine.device import BatchTile, Device, DeviceModel
from segmentd.engine.device_turns import MemoryRules
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import DeviceState, TileListener, strips
from segmentd.engine.loaded import DeepJob, ForestJob, Job, Loaded
from segmentd.engine.offload import Offload
from segmentd.engine.predictor import Predictor
from segmentd.engine.scoring import ScoredPart
from segmentd.engine.segmenter import Band, BandResult, TileResult
from segmentd.engine.source import PlaneSource
from segmentd.engine.tile_orders import Order, Trail
from segmentd.engine.tile_queue import TileQueue, UseCpuError
from segmentd.errors import Reason, SegmentdError
from segmentd.records import ModelCard, Region, SegmentOptions

DEFAULT_RULES = MemoryRules()
# Orders of a plane at once, each of at most a batch: one is computed while the other one is made.
ORDERS_AHEAD = 2
FOREST_ON_CPU = "the forest on deep features is computed on the CPU"


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
    rules : MemoryRules
        How much models may take on the device, and when it is given back.
    wanted : callable
        Files of the models that planes wait for, the next one first.
    """

    def __init__(
        self,
        device: Device,
        cpu: CpuLane,
        required: bool = False,
        clock: Callable[[], float] = time.monotonic,
        rules: MemoryRules = DEFAULT_RULES,
        wanted: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.name = device.name
        self._display_name = device.display_name
        self._cpu = cpu
        self._required = required
        self._wanted = wanted
        self._turns = ArrayTurns(device, required, clock, rules, self._wanted_models)
        self._queue = TileQueue(device, self._turns, required, clock)

    def load(self, path: Path) -> ModelCard:
        """As `CpuLane.load`; the model is brought to the device, too, if that can be used."""
        card = self._cpu.load(path)
        self.bring(path)
        return card

    def bring(self, path: Path) -> None:
        """Bring a model that the CPU lane has loaded to the device, too, if that can be used."""
        self._turns.keep_only(_for_devices(self._cpu.models()))
        model = self._on_device(path)
        if model is not None:
            self._turns.bring(model)

    def unload(self, path: Path) -> None:
        """As `CpuLane.unload`."""
        self._cpu.unload(path)
        self.forget_unloaded()

    def forget_unloaded(self) -> None:
        """Take off the device what the CPU lane has forgotten."""
        self._turns.keep_only(_for_devices(self._cpu.models()))

    def pin(self, path: Path) -> None:
        """Keep a loaded model on the device until it is unloaded; DEVICE_UNAVAILABLE where it has no room."""
        model = self._on_device(path)
        if model is not None:
            self._turns.pin(model)

    def device_of(self, path: Path) -> str:
        """The device where it has the model, else the CPU."""
        model = self._on_device(path)
        return self.name if model is not None and self._turns.has(model) else self._cpu.name

    def at_hand(self, path: Path) -> bool:
        """Whether the model is on the device, or is none for it."""
        model = self._on_device(path)
        return model is None or self._turns.has(model)

    def tidy(self) -> None:
        """Give memory of the device back where that is due."""
        self._turns.tidy()

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
        trail = Trail()
        job = self._cpu.job(path, source, options, channels, digest, self._offload(trail))
        if self._on_device(path) is None:
            self._turn_to_cpu(trail, f"{self.name} was not given the network")
        try:
            for strip in strips(job, lambda band: self._tiles(job, band, trail), on_tile):
                seconds = time.perf_counter() - began
                devices = "+".join(name for name in (self.name, self._cpu.name) if name in trail.devices)
                yield replace(strip, compute_seconds=seconds, device=devices, device_reason=trail.reason)
                began = time.perf_counter()
        finally:
            self._turns.end(trail)

    def scores(
        self,
        path: Path,
        source: PlaneSource,
        options: SegmentOptions,
        channels: slice = slice(None),
        digest: str | None = None,
    ) -> Iterator[ScoredPart]:
        """As `CpuLane.scores`; raises as `segment`."""
        trail = Trail()
        try:
            yield from self._cpu.scores(path, source, options, channels, digest, self._offload(trail))
        finally:
            self._turns.end(trail)

    def devices(self) -> list[DeviceState]:
        """The device, and the CPU beside it, with the reason why that is used now."""
        turns = self._turns
        device = DeviceState(self.name, self._display_name, 1, "", turns.memory(), turns.counts)
        return [device, *(replace(cpu, reason=self._turns.reason) for cpu in self._cpu.devices())]

    def work_since(self) -> float | None:
        """When the oldest piece of work on either device was begun, on the monotonic clock."""
        begun = (self._turns.activity.oldest(), self._cpu.work_since())
        return min((start for start in begun if start is not None), default=None)

    def abandon(self) -> None:
        """Give up all planes: they end with SHUTTING_DOWN after the batches in work."""
        self._cpu.abandon()

    def give_back(self) -> None:
        """Give the device back."""
        self._queue.close()
        self._turns.close()

    def close(self) -> None:
        """Stop; tiles in work finish first."""
        self.give_back()
        self._cpu.close()

    def _tiles(self, job: Job, band: Band, trail: Trail) -> Iterator[TileResult]:
        """The tiles of a band as they are done, on the device while that can be used."""
        if not isinstance(job, ForestJob):
            inner = job.plane if isinstance(job, CrfJob) else job
            if isinstance(inner, DeepJob):  # its forest is the CPU's part
                trail.note(self._cpu.name, trail.reason or FOREST_ON_CPU)
            yield from self._cpu.tiles(job.work(band))
            return
        left = deque(job.tiles(band))
        orders: deque[Order] = deque()
        try:
            while left or orders:
                self._cpu.check_going_on()
                why_cpu = self._ask(job, band, left, trail, orders)
                if orders:
                    order = orders.popleft()
                    done = self._queue.results(order, job, band)
                    left.extendleft(reversed(order.missing()))
                    if done:
                        trail.note(self.name)
                    yield from done
                    why_cpu = self._queue.why_cpu(order) or why_cpu
                if why_cpu and left:
                    self._turn_to_cpu(trail, why_cpu)
                    # Not all that is left: the device may be back soon.
                    cores = [left.popleft() for _ in range(min(len(left), 4 * self._cpu.threads))]
                    yield from self._cpu.tiles(job.pieces(band, cores))
        finally:
            for order in orders:
                self._queue.withdraw(order)

    def _ask(
        self, job: ForestJob, band: Band, left: deque[Region], trail: Trail, orders: deque[Order]
    ) -> str:
        """Order tiles ahead, so that they are cut while others are computed; says why not, where not."""
        try:
            while left and len(orders) < ORDERS_AHEAD:
                orders.append(self._queue.order(job, band, left, trail))
        except UseCpuError as error:
            return str(error)
        return ""

    def _offload(self, trail: Trail) -> Offload:
        """What planes are computed with; where the device cannot be used that is the CPU."""

        def attempt(there: Callable[[], Floats], here: Callable[[], Floats]) -> Floats:
            try:
                found = there()
            except UseCpuError as error:
                self._turn_to_cpu(trail, str(error))
                return here()
            trail.note(self.name)
            return found

        def evaluate(model: ArrayModel, values: Floats) -> Floats:
            there = partial(self._turns.evaluate, model, values, trail)
            return attempt(there, lambda: model.on_cpu()(values))

        def scores(model: Predictor, tile: BatchTile) -> Floats:
            there = partial(self._turns.scores, model, tile, trail)
            return attempt(there, lambda: model.scores(tile.cut(model.reach_px)))

        def marginals(window: crf.Window, parameters: crf.Parameters) -> Floats:
            there = partial(self._turns.marginals, window, parameters, trail)
            return attempt(there, lambda: self._cpu.refiner.marginals(window, parameters))

        return Offload(evaluate, scores, marginals)

    def _turn_to_cpu(self, trail: Trail, why: str) -> None:
        if self._required:
            raise SegmentdError(
                Reason.DEVICE_UNAVAILABLE,
                f"{why}, and device.require_gpu forbids the CPU; tried again later",
                field="device.require_gpu",
            )
        trail.note(self._cpu.name, f"{why}; computed on the CPU")

    def _on_device(self, path: Path) -> DeviceModel | None:
        """What the device could compute with of a loaded model; None for what is not loaded."""
        try:
            return self._cpu.model(path).on_device
        except SegmentdError:
            return None

    def _wanted_models(self) -> list[DeviceModel]:
        return [model for path in self._wanted() if (model := self._on_device(Path(path))) is not None]


def _for_devices(models: Sequence[Loaded]) -> list[DeviceModel]:
    return [model.on_device for model in models if model.on_device is not None]
