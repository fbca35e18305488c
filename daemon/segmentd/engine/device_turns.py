"""The use of one device, by one thread at a time: batches, models, and what to do when it fails.

Which tiles make a batch is decided by `segmentd.engine.tile_queue`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
    DeviceTile,
    NoRoomError,
)
from segmentd.engine.device_memory import DEFAULT_BUDGET, DeviceMemory, Hold, MemoryState
from segmentd.engine.ladder import BackOff, Fit
from segmentd.engine.tile_orders import Piece, Trail
from segmentd.errors import Reason, SegmentdError

_log = telemetry.get_logger(__name__)


@dataclass(frozen=True)
class MemoryRules:
    """How much models may take on a device (see `DeviceMemory`), and when idle ones go (None: never)."""

    budget: str = DEFAULT_BUDGET
    idle_seconds: float | None = None


@dataclass(frozen=True)
class BatchCounts:
    """Batches that were computed, and the tiles and planes in them; a plane counts in each of its batches."""

    batches: int = 0
    tiles: int = 0
    planes: int = 0


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
    clock : callable
        Monotonic seconds.
    rules : MemoryRules
        For the memory of the device.
    wanted : callable
        The models that planes wait for, the next one first.

    Attributes
    ----------
    counts : BatchCounts
        Since the start.
    """

    def __init__(
        self,
        device: Device,
        clock: Callable[[], float],
        rules: MemoryRules,
        wanted: Callable[[], Sequence[DeviceModel]],
    ) -> None:
        self.activity = Activity(clock)
        self.counts = BatchCounts()  # exchanged as a whole: any thread may look
        self._device = device
        self._clock = clock
        self._idle_seconds = rules.idle_seconds
        self._turn = threading.Lock()
        self._ended: deque[Trail] = deque()
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
        with self._taking_turn():
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
                self._out_of_memory(fare, error, less=False)
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
        with self._taking_turn():
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
        with self._taking_turn(), self._losses_noted():
            for model in set(tuple(self._fares)) - set(models):
                del self._fares[model]
                self._memory.forget(model)

    def tidy(self) -> None:
        """Give memory back where that is due."""
        with self._taking_turn(), self._losses_noted():
            self._memory.tidy(self._idle_seconds)

    def close(self) -> None:
        """Give the device back; a batch in work is waited for."""
        with self._taking_turn():
            self._memory.lost()
            self._device.close()

    def end(self, trail: Trail) -> None:
        """A plane has ended. Does not wait for a turn: the next one takes note of it."""
        trail.ended = True
        self._ended.append(trail)
        if self._turn.acquire(blocking=False):
            try:
                self._note_ends()
            finally:
                self._turn.release()

    def judge(self, model: DeviceModel) -> tuple[Fit, str]:
        """How much of a model's work fits at once, and why the device is not to be tried now for it."""
        fare = self._fare(model)
        why_not = self._why_not(fare)
        if not why_not:
            fare.fit.grow(self._clock())
        return fare.fit, why_not

    def run(self, batch: Batch, pieces: Sequence[Piece]) -> Sequence[DeviceTile] | None:
        """Compute a prepared batch; None where that fails, of which `judge` knows then, or is not tried.

        Raises
        ------
        NoRoomError
            There is no room for the model now.
        """
        with self._taking_turn():
            # Who was withdrawn holds nothing any more: its plane may have ended.
            planes = {
                id(piece.order.trail): piece.order.trail for piece in pieces if not piece.order.withdrawn
            }
            fare = self._fare(batch.model)
            if not planes or self._why_not(fare) or len(pieces) > fare.fit.batch:
                return None
            try:
                with self.activity.piece():
                    for trail in planes.values():
                        self._memory.hold(trail.hold, batch.model)
                    tiles = self._device.run(batch)
                if any((tile.confidence == NOT_A_NUMBER).any() for tile in tiles):
                    raise DeviceLostError("it returned values that are not numbers")
            except DeviceOutOfMemoryError as error:
                may_cut = all(piece.order.may_cut for piece in pieces)
                cores = [piece.core for piece in pieces]
                less = error.batch > 0 and fare.fit.shrink(self._clock(), cores, may_cut)
                self._out_of_memory(fare, error, less)
            except DeviceLostError as error:
                self._lost(error)
            else:
                self._back_off.worked()
                fare.back_off.worked()
                done = self.counts
                self.counts = BatchCounts(
                    done.batches + 1, done.tiles + len(pieces), done.planes + len(planes)
                )
                return tiles
        return None

    @contextmanager
    def _taking_turn(self) -> Iterator[None]:
        with self._turn:
            self._note_ends()
            try:
                yield
            finally:
                self._note_ends()

    def _note_ends(self) -> None:
        while self._ended:
            self._memory.release(self._ended.popleft().hold)

    @contextmanager
    def _losses_noted(self) -> Iterator[None]:
        """Where nobody waits for the device, its loss is only noted."""
        try:
            yield
        except DeviceLostError as error:
            self._lost(error)

    def _why_not(self, fare: Fare) -> str:
        """Why the device is not to be tried now for a model; empty where it is."""
        now = self._clock()
        for back_off in (self._back_off, fare.back_off):
            if not back_off.may_try(now):
                return f"{self._device.name} {back_off.reason}"
        return ""

    def _out_of_memory(self, fare: Fare, error: DeviceOutOfMemoryError, less: bool) -> None:
        """Note that a model's work did not fit; `less` of it at once is tried next, or the CPU takes over."""
        name = self._device.name
        if less:
            _log.info("the device takes less at once", device=name, why=str(error), batch=fare.fit.batch)
            return
        fare.back_off.failed(self._clock(), f"is out of memory ({error})")
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
