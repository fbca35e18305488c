"""The models on a device: brought when a plane needs them, within a budget that other programs may narrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segmentd import telemetry
from segmentd.engine import acceptance
from segmentd.engine.device import (
    Device,
    DeviceModel,
    DeviceOutOfMemoryError,
    DeviceRefusesError,
    NoRoomError,
)
from segmentd.engine.predictor import Predictor
from segmentd.models.residency import Residency, Verdict
from segmentd.settings.values import memory_bytes

DEFAULT_BUDGET = "50%"
MEBIBYTE = 1 << 20

_log = telemetry.get_logger(__name__)


@dataclass(frozen=True)
class MemoryState:
    """What loaded models may take and take, in bytes; the ids of those there; how often one was loaded."""

    budget_bytes: int
    held_bytes: int
    models: tuple[str, ...]
    loads: int


class Hold:
    """The right of a plane to find its model on the device until the plane has ended."""

    def __init__(self) -> None:
        self.model: DeviceModel | None = None
        self.opening = 0


class DeviceMemory:
    """What is on a device. One thread at a time.

    Parameters
    ----------
    device : Device
        The device.
    budget : str
        What models may take: a size such as `4GiB`, or a share such as `50%` of what is free when the
        device is opened.
    clock : callable
        Monotonic seconds.
    wanted : callable
        The models that planes wait for, the next one first.

    Attributes
    ----------
    state : MemoryState
        What is there now.
    opening : int
        Counts how often the device was opened.
    """

    def __init__(
        self,
        device: Device,
        budget: str,
        clock: Callable[[], float],
        wanted: Callable[[], Sequence[DeviceModel]],
    ) -> None:
        self._device = device
        self._budget = budget
        self._clock = clock
        self._wanted = wanted
        self._residency: Residency[DeviceModel] = Residency(0)
        self._measured: dict[DeviceModel, int] = {}
        self.opening = 0  # counts up; what was held before the device was opened anew is gone
        self._is_open = False
        self.state = MemoryState(0, 0, (), 0)  # exchanged as a whole: any thread may look

    def open(self) -> None:
        """Open the device if it is not; DeviceLostError."""
        if not self._is_open:
            self._device.open()
            self._residency.budget_bytes = memory_bytes(self._budget, self._device.free_bytes())
            self._is_open = True
            self.opening += 1
            self._note()

    def lost(self) -> None:
        """The device is gone, and all that was on it."""
        self._is_open = False
        self._residency.lose_all()
        self._note()

    def has(self, model: DeviceModel) -> bool:
        """Whether a model is on the device."""
        return self._residency.has(model)

    def hold(self, hold: Hold, model: DeviceModel) -> None:
        """Have a model on the device and keep it there; nothing to do if the hold has it.

        Raises
        ------
        NoRoomError
            Others are in use or pinned, or other programs take the memory.
        DeviceOutOfMemoryError, DeviceRefusesError, DeviceLostError
            The device could not take it.
        """
        self.open()
        if hold.model is model and hold.opening == self.opening:
            return
        free = self._device.free_bytes()
        wanted = self._wanted()
        answer = self._residency.lease(model, self._size(model), self._clock(), free, wanted)
        if answer.verdict in (Verdict.WAIT, Verdict.NEVER):
            raise NoRoomError(self._no_room(model, answer.verdict, free))
        hold.model, hold.opening = model, self.opening
        self._unload(answer.evict)
        if answer.verdict is Verdict.LOAD:
            try:
                self._load(hold, model)
            finally:
                self._note()

    def release(self, hold: Hold) -> None:
        """A plane has ended."""
        if hold.model is not None and hold.opening == self.opening:
            self._residency.end_lease(hold.model, self._clock())
        hold.model = None

    def pin(self, model: DeviceModel) -> None:
        """Bring a model and keep it until it is unloaded; raises as `hold`, and it is not pinned then."""
        hold = Hold()
        self.hold(hold, model)
        self._residency.pin(model)
        self.release(hold)

    def forget(self, model: DeviceModel) -> None:
        """Take a model off that no plane will ask for again; planes that are in work keep it to their end."""
        self._measured.pop(model, None)
        there = self._residency.has(model)
        if self._residency.unload(model):
            self._unload([model] if there else [])
        else:
            self._residency.unpin(model)

    def tidy(self, idle_seconds: float | None) -> None:
        """Give memory back: to other programs that need it, and where asked to of models that are idle."""
        if not self._is_open:
            return
        self._unload(self._residency.give_way(self._device.free_bytes()))
        if idle_seconds is None:
            return
        idle = self._residency.idle(self._clock(), idle_seconds)
        self._unload(idle)
        if idle and not self._residency.models():
            self._device.close()  # with it goes what drivers and libraries keep for the next model
            self._is_open = False

    def _note(self) -> None:
        models = tuple(model.card.id for model in self._residency.models())
        self.state = MemoryState(
            self._residency.budget_bytes, self._residency.held_bytes, models, self._residency.loads
        )

    def _size(self, model: DeviceModel) -> int:
        """What a model takes, as was seen when it was last there, else as it says."""
        return self._measured.get(model, model.size_bytes)

    def _load(self, hold: Hold, model: DeviceModel) -> None:
        """Load what the residency has made room for; if the device disagrees, models that nobody uses go."""
        while True:
            try:
                self._bring(model)
                return
            except DeviceOutOfMemoryError:
                gone = self._residency.give_one()
                if gone is None:
                    self._give_up(hold, model)
                    raise
                self._unload([gone])
            except DeviceRefusesError:
                self._give_up(hold, model)
                raise

    def _bring(self, model: DeviceModel) -> None:
        """Load a model. Networks are tried, and what they really take is seen by what is free after it."""
        before = self._device.free_bytes()
        self._device.load(model)
        if isinstance(model, Predictor):
            return
        acceptance.try_model(self._device, model)
        after = self._device.free_bytes()
        if before is not None and after is not None and after < before:
            self._measured[model] = before - after
            self._residency.resize(model, before - after)

    def _give_up(self, hold: Hold, model: DeviceModel) -> None:
        self._residency.drop(model)
        hold.model = None
        self._device.unload(model)

    def _unload(self, models: Sequence[DeviceModel]) -> None:
        for model in models:
            self._device.unload(model)
            _log.info("a model leaves a device", device=self._device.name, model=model.card.id)
        self._note()

    def _no_room(self, model: DeviceModel, verdict: Verdict, free: int | None) -> str:
        size, budget = _mebibytes(self._size(model)), _mebibytes(self._residency.budget_bytes)
        if verdict is Verdict.NEVER:
            return f"has no room for the model: it takes {size} of {budget}, beside those that are pinned"
        left = "" if free is None else f", {_mebibytes(max(free, 0))} are free on the device"
        return f"has no room for the model ({size}) beside those in use{left}"


def _mebibytes(size: int) -> str:
    return f"{size / MEBIBYTE:,.1f} MiB"
