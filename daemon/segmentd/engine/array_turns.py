"""The use of one device for arrays: what networks make of tiles, probabilities, the random field."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from segmentd import telemetry
from segmentd.compute import crf
from segmentd.compute.fast_features import Floats
from segmentd.engine import acceptance
from segmentd.engine.array_models import ArrayModel
from segmentd.engine.device import (
    BatchTile,
    Device,
    DeviceLostError,
    DeviceModel,
    DeviceOutOfMemoryError,
    DeviceRefusesError,
    NoRoomError,
)
from segmentd.engine.device_turns import BatchCounts, DeviceTurns, Fare, MemoryRules
from segmentd.engine.ladder import BackOff, Fit
from segmentd.engine.predictor import Predictor
from segmentd.engine.tile_orders import Trail
from segmentd.engine.tile_queue import LONGEST_WAIT_FOR_ROOM_SECONDS, ROOM_PAUSE_SECONDS, UseCpuError

_log = telemetry.get_logger(__name__)


class ArrayTurns(DeviceTurns):
    """As `DeviceTurns`, for models of all kinds; calls may come from many threads.

    Where the device is `required`, planes wait for room on it, as they must not go to the CPU.
    """

    def __init__(
        self,
        device: Device,
        required: bool,
        clock: Callable[[], float],
        rules: MemoryRules,
        wanted: Callable[[], Sequence[DeviceModel]],
    ) -> None:
        super().__init__(device, clock, rules, wanted)
        self._required = required
        self._field = Fare(Fit(1), BackOff())
        self._field_tried_in = 0

    def evaluate(self, model: ArrayModel, values: Floats, trail: Trail) -> Floats:
        """What a model makes of arrays, as many at once as have room.

        Raises
        ------
        UseCpuError
            The device is not to be tried now.
        """
        made: list[Floats] = []
        left = values
        while len(left):
            fare = self._fare(model)

            def compute(left: Floats = left, fare: Fare = fare) -> Floats:
                self._memory.hold(trail.hold, model)
                return self._computed(model, left[: fare.fit.batch])

            part = self._attempt(fare, trail, compute)
            if part is not None:
                made.append(part)
                left = left[len(part) :]
        return made[0] if len(made) == 1 else np.concatenate(made)

    def scores(self, model: Predictor, tile: BatchTile, trail: Trail) -> Floats:
        """As `Predictor.scores`; UseCpuError where the device is not to be tried now."""
        fare = self._fare(model)

        def compute() -> Floats:
            self._memory.hold(trail.hold, model)
            return _numbers(self._device.scores(model, tile))

        return self._until_done(fare, trail, compute)

    def marginals(self, window: crf.Window, parameters: crf.Parameters, trail: Trail) -> Floats:
        """As `segmentd.compute.crf.infer`; UseCpuError where the device is not to be tried now."""

        def compute() -> Floats:
            self._memory.open()
            if self._field_tried_in != self._memory.opening:
                acceptance.try_field(self._device)
                self._field_tried_in = self._memory.opening
            return _numbers(self._device.marginals(window, parameters))

        return self._until_done(self._field, trail, compute)

    def _computed(self, model: ArrayModel, part: Floats) -> Floats:
        found = self._device.evaluate(model, part)
        # A network may really make such values; then the CPU's way shows them as well.
        if not np.isfinite(found).all() and np.isfinite(model.on_cpu()(part)).all():
            raise DeviceLostError(acceptance.NOT_NUMBERS)
        done = self.counts
        self.counts = BatchCounts(done.batches + 1, done.tiles + len(part), done.planes + 1)
        return found

    def _until_done(self, fare: Fare, trail: Trail, compute: Callable[[], Floats]) -> Floats:
        while True:
            found = self._attempt(fare, trail, compute)
            if found is not None:
                return found

    def _attempt(self, fare: Fare, trail: Trail, compute: Callable[[], Floats]) -> Floats | None:
        """Take a turn; None where that failed and is to be tried again, if only to hear why not."""
        with self._taking_turn():
            why_not = "the plane was given up" if trail.ended else self._why_not(fare)
            if why_not:
                raise UseCpuError(why_not)
            fare.fit.grow(self._clock())
            try:
                with self.activity.piece():
                    found = compute()
            except NoRoomError as error:
                self._no_room(error, trail)
            except DeviceOutOfMemoryError as error:
                self._out_of_memory(fare, error, fare.fit.fewer(self._clock(), error.batch))
            except DeviceRefusesError as error:
                self._refused(fare, error)
            except DeviceLostError as error:
                self._lost(error)
            else:
                self._back_off.worked()
                fare.back_off.worked()
                trail.no_room_since = None
                return found
        if trail.no_room_since is not None:
            time.sleep(ROOM_PAUSE_SECONDS)  # others have their turn meanwhile
        return None

    def _no_room(self, error: NoRoomError, trail: Trail) -> None:
        """The CPU does a part of the plane meanwhile; where it must not, the plane waits for a while."""
        longest = LONGEST_WAIT_FOR_ROOM_SECONDS if self._required else 0.0
        if not trail.waits_for_room(self._clock(), longest):
            raise UseCpuError(f"{self._device.name} {error}")


def _numbers(found: Floats) -> Floats:
    """What a device found, if it is numbers."""
    if not np.isfinite(found).all():
        raise DeviceLostError(acceptance.NOT_NUMBERS)
    return found
