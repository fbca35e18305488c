"""The use of one device, by one thread at a time: batches, models, and what to do when it fails."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from segmentd import telemetry
from segmentd.engine.activity import Activity
from segmentd.engine.device import (
    NOT_A_NUMBER,
    Batch,
    Device,
    DeviceLostError,
    DeviceModel,
    DeviceOutOfMemoryError,
    DeviceRefusesError,
    NoRoomError,
)
from segmentd.engine.device_memory import DEFAULT_BUDGET, DeviceMemory, Hold, MemoryState
from segmentd.engine.ladder import BackOff, Fit
from segmentd.engine.loaded import ForestJob
from segmentd.engine.segmenter import Band, TileResult
from segmentd.errors import Reason, SegmentdError
from segmentd.records import Region

# How long a plane that must not be computed on the CPU waits for others to make room.
LONGEST_WAIT_FOR_ROOM_SECONDS = 10.0
ROOM_PAUSE_SECONDS = 0.01
_log = telemetry.get_logger(__name__)


class UseCpuError(Exception):
    """The device cannot be used now; the message says why."""


@dataclass(frozen=True)
class MemoryRules:
    """How much models may take on a device (see `DeviceMemory`), and when idle ones go (None: never)."""

    budget: str = DEFAULT_BUDGET
    idle_seconds: float | None = None


@dataclass
class Trail:
    """The devices that computed a plane, why not the preferred one alone, and its hold on the model.

    `ended` keeps pieces of a plane that was given up from holding the model for ever.
    """

    devices: set[str] = field(default_factory=set)
    reason: str = ""
    hold: Hold = field(default_factory=Hold)
    no_room_since: float | None = None
    ended: bool = False

    def note(self, device: str, reason: str = "") -> None:
        """A part was computed."""
        self.devices.add(device)
        self.reason = reason or self.reason


@dataclass
class Fare:
    """How a model fares on the device."""

    fit: Fit
    back_off: BackOff


class DeviceTurns:
    """One device; calls wait for their turn.

    Parameters
    ----------
    device : Device
        The device.
    required : bool
        Planes wait for room on it, as they must not go to the CPU.
    clock : callable
        Monotonic seconds.
    rules : MemoryRules
        For the memory of the device.
    wanted : callable
        The models that planes wait for, the next one first.
    """

    def __init__(
        self,
        device: Device,
        required: bool,
        clock: Callable[[], float],
        rules: MemoryRules,
        wanted: Callable[[], Sequence[DeviceModel]],
    ) -> None:
        self.activity = Activity(clock)
        self._device = device
        self._required = required
        self._clock = clock
        self._idle_seconds = rules.idle_seconds
        self._turn = threading.Lock()
        self._back_off = BackOff()
        self._fares: dict[DeviceModel, Fare] = {}
        self._memory = DeviceMemory(device, rules.budget, clock, wanted)

    @property
    def reason(self) -> str:
        """Why the device is not used now; empty where it is."""
        return self._back_off.reason

    def memory(self) -> MemoryState:
        """What is on the device; does not wait for a turn."""
        return self._memory.state

    def has(self, model: DeviceModel) -> bool:
        """Whether a model is on the device."""
        return self._memory.has(model)

    def bring(self, model: DeviceModel) -> None:
        """Bring a model to the device, if that can be used and has room."""
        with self._turn:
            fare = self._fare(model)
            if self._why_not(fare):
                return
            hold = Hold()
            try:
                self._memory.hold(hold, model)
                self._memory.release(hold)
            except NoRoomError as error:
                _log.info(
                    "a model waits for room", device=self._device.name, model=model.card.id, why=str(error)
                )
            except DeviceOutOfMemoryError as error:
                self._out_of_memory(fare, error, [], may_cut=False)
            except DeviceRefusesError as error:
                self._refused(fare, error)
            except DeviceLostError as error:
                self._lost(error)

    def pin(self, model: DeviceModel) -> None:
        """Keep a model on the device until it is forgotten.

        Raises
        ------
        SegmentdError
            DEVICE_UNAVAILABLE where it has no room, or cannot be used.
        """
        with self._turn:
            why = self._why_not(self._fare(model))
            try:
                if not why:
                    self._memory.pin(model)
                    return
            except (NoRoomError, DeviceOutOfMemoryError, DeviceRefusesError) as error:
                why = f"{self._device.name} {error}"
            except DeviceLostError as error:
                self._lost(error)
                why = f"{self._device.name} {self._back_off.reason}"
        advice = "unload other models first, or raise device.memory_budget"
        raise SegmentdError(
            Reason.DEVICE_UNAVAILABLE, f"model '{model.card.id}' cannot be kept: {why}; {advice}"
        )

    def keep_only(self, models: Iterable[DeviceModel]) -> None:
        """Take off the device what is no longer loaded."""
        with self._turn, self._losses_noted():
            for model in self._fares.keys() - set(models):
                del self._fares[model]
                self._memory.forget(model)

    def tidy(self) -> None:
        """Give memory back where that is due."""
        with self._turn, self._losses_noted():
            self._memory.tidy(self._idle_seconds)

    def close(self) -> None:
        """Give the device back; a batch in work is waited for."""
        with self._turn:
            self._memory.lost()
            self._device.close()

    def end(self, trail: Trail) -> None:
        """A plane has ended."""
        with self._turn:
            trail.ended = True
            self._memory.release(trail.hold)

    def try_batch(self, job: ForestJob, band: Band, left: deque[Region], trail: Trail) -> list[TileResult]:
        """Compute the next batch; where that fails it is left again, and nothing is returned.

        Raises
        ------
        UseCpuError
            The device is not to be tried now.
        """
        with self._turn:
            fare = self._fare(job.predictor)
            why_not = self._why_not(fare)
            if why_not:
                raise UseCpuError(why_not)
            fare.fit.grow(self._clock())
            batch = fare.fit.take(left, job.seamless)
            try:
                with self.activity.piece():
                    self._memory.hold(trail.hold, job.predictor)
                    tiles = _run(self._device, job, band, batch)
            except NoRoomError as error:
                left.extendleft(reversed(batch))
                self._no_room(error, trail)
            except DeviceOutOfMemoryError as error:
                left.extendleft(reversed(batch))
                self._out_of_memory(fare, error, batch, job.seamless)
            except DeviceLostError as error:
                left.extendleft(reversed(batch))
                self._lost(error)
            else:
                self._back_off.worked()
                fare.back_off.worked()
                trail.no_room_since = None
                return tiles
        if trail.no_room_since is not None:
            time.sleep(ROOM_PAUSE_SECONDS)  # others have their turn meanwhile
        return []

    @contextmanager
    def _losses_noted(self) -> Iterator[None]:
        """Where nobody waits for the device, its loss is only noted."""
        try:
            yield
        except DeviceLostError as error:
            self._lost(error)

    def _no_room(self, error: NoRoomError, trail: Trail) -> None:
        """The CPU does a part of the plane meanwhile; where it must not, the plane waits for a while."""
        now = self._clock()
        since = now if trail.no_room_since is None else trail.no_room_since
        trail.no_room_since = since
        if not self._required or now - since >= LONGEST_WAIT_FOR_ROOM_SECONDS:
            trail.no_room_since = None
            raise UseCpuError(f"{self._device.name} {error}")

    def _why_not(self, fare: Fare) -> str:
        """Why the device is not to be tried now for a model; empty where it is."""
        now = self._clock()
        for back_off in (self._back_off, fare.back_off):
            if not back_off.may_try(now):
                return f"{self._device.name} {back_off.reason}"
        return ""

    def _out_of_memory(
        self, fare: Fare, error: DeviceOutOfMemoryError, batch: list[Region], may_cut: bool
    ) -> None:
        now, name = self._clock(), self._device.name
        if error.batch and fare.fit.shrink(now, batch, may_cut):
            _log.info("the device takes less at once", device=name, why=str(error), batch=fare.fit.batch)
            return
        fare.back_off.failed(now, f"is out of memory ({error})")
        _log.warning("the CPU takes over a model", device=name, why=str(error))

    def _refused(self, fare: Fare, error: DeviceRefusesError) -> None:
        """The model is not for the device; tried again later, since drivers and packages are mended."""
        fare.back_off.failed(self._clock(), f"cannot compute the model ({error})")
        _log.warning("the CPU takes over a model", device=self._device.name, why=str(error))

    def _lost(self, error: DeviceLostError) -> None:
        """Everything on the device is gone, other models too."""
        self._back_off.failed(self._clock(), f"was lost ({error})")
        self._memory.lost()
        _log.warning("the CPU takes over from a device", device=self._device.name, why=str(error))

    def _fare(self, model: DeviceModel) -> Fare:
        return self._fares.setdefault(model, Fare(Fit(self._device.max_batch), BackOff()))


def _run(device: Device, job: ForestJob, band: Band, cores: Sequence[Region]) -> list[TileResult]:
    """Compute tiles; values that are not numbers are a fault of the device."""
    tiles = [job.around(band, core) for core in cores]
    found = device.run(Batch(job.predictor, job.scale, job.level, tiles))
    if any((tile.confidence == NOT_A_NUMBER).any() for tile in found):
        raise DeviceLostError("it returned values that are not numbers")
    return [
        job.finished(band, core, tile.labels, tile.confidence)
        for core, tile in zip(cores, found, strict=True)
    ]
