"""A device in a process of its own: whatever a driver does to that process, the daemon goes on.

Only that process touches the device. Where it crashes or does not answer in time the device counts as lost,
and opening it anew starts another process; that also mends what CUDA calls a broken context, which nothing
inside the old process can. Tiles and results lie in memory that both processes see.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute import crf
from segmentd.compute.fast_features import Floats
from segmentd.engine import model_messages, shared_memory
from segmentd.engine.array_models import ArrayModel
from segmentd.engine.device import (
    Batch,
    DeviceLostError,
    DeviceModel,
    DeviceOutOfMemoryError,
    DeviceRefusesError,
    DeviceTile,
)
from segmentd.engine.shared_memory import SharedMemory, array_at, described
from segmentd.errors import SegmentdError
from segmentd.workers import WorkerPool, wire

CHILD = "segmentd.engine.device_child"
ADVICE = "another process takes its place later"
BYTE, FLOAT = np.dtype(np.uint8), np.dtype(np.float32)


@dataclass(frozen=True)
class Opener:
    """What opens the device in its process: a function `package.module:name`, and its arguments."""

    target: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Deadlines:
    """Seconds after which a process counts as hanging: to open a device, and for anything else."""

    opening: float = 120.0
    answer: float = 30.0


class DeviceProcess:
    """A device as lanes know it (`segmentd.engine.device.Device`), which lives in another process.

    Parameters
    ----------
    opener : Opener
        What the process does first.
    name, display_name, max_batch
        As for `Device`.
    deadlines : Deadlines
        When the process is killed.
    packages : tuple of str
        Where the opener is.
    """

    def __init__(
        self,
        opener: Opener,
        name: str,
        display_name: str,
        max_batch: int,
        deadlines: Deadlines | None = None,
        packages: tuple[str, ...] = ("segmentd",),
    ) -> None:
        self.name = name
        self.display_name = display_name
        self.max_batch = max_batch
        self._opener = opener
        self._deadlines = deadlines or Deadlines()
        self._packages = packages
        self._pool: WorkerPool | None = None
        self._memory = SharedMemory()
        self._numbers: dict[DeviceModel, int] = {}
        self._next_number = count()

    def open(self) -> None:
        """Start a process that opens the device."""
        self.close()
        self._pool = WorkerPool(
            1, 0, self._deadlines.answer, self._packages, calls_per_worker=None, advice=ADVICE
        )
        self._ask(self._opener.target, self._opener.arguments, seconds=self._deadlines.opening)

    def close(self) -> None:
        """End the process, and with it all that the device has of us."""
        self._numbers.clear()
        self._memory.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def free_bytes(self) -> int | None:
        """What models may still take on the device."""
        free = self._ask(f"{CHILD}:free_bytes", {})
        return None if free is None else int(free)

    def load(self, model: DeviceModel) -> None:
        """Send a model over."""
        message, arrays = model_messages.packed(model)
        where, memory = wire.pack_arrays(arrays)
        number = next(self._next_number)
        arguments = {"model": number, "message": message, "arrays": where}
        try:
            # Libraries of networks take their time when they are first needed.
            self._ask(f"{CHILD}:load", arguments, [] if memory is None else [memory], self._deadlines.opening)
        finally:
            if memory is not None:
                os.close(memory)
        self._numbers[model] = number

    def unload(self, model: DeviceModel) -> None:
        """Have the process forget a model."""
        number = self._numbers.pop(model, None)
        if number is not None:
            self._ask(f"{CHILD}:unload", {"model": number})

    def run(self, batch: Batch) -> list[DeviceTile]:
        """Have a batch computed."""
        number = self._number(batch.model)
        shapes = [(2, *_core(tile, batch.model.reach_px)) for tile in batch.tiles]
        sizes = [*(tile.nbytes for tile in batch.tiles), *(math.prod(shape) for shape in shapes)]
        begins = shared_memory.places(sizes)
        room = self._memory.room(begins[-1])
        count = len(batch.tiles)
        tiles = [described(tile.dtype, tile.shape, at) for tile, at in zip(batch.tiles, begins, strict=False)]
        results = [described(BYTE, shape, at) for shape, at in zip(shapes, begins[count:-1], strict=True)]
        for tile, where in zip(batch.tiles, tiles, strict=True):
            array_at(room, where)[:] = tile
        scale = batch.scale
        arguments = {
            "model": number,
            "scale": None if scale is None else [scale.offset.tolist(), scale.divisor.tolist()],
            "level": batch.level.tolist(),
            "tiles": tiles,
            "results": results,
        }
        self._ask(f"{CHILD}:run", arguments, [self._memory.descriptor])
        return [DeviceTile(*array_at(room, where).copy()) for where in results]

    def evaluate(self, model: ArrayModel, values: Floats) -> Floats:
        """Have a network make something of arrays."""
        return self._made(f"{CHILD}:evaluate", [values], model.made(values.shape), model=self._number(model))

    def marginals(self, window: crf.Window, parameters: crf.Parameters) -> Floats:
        """Have a window put through the conditional random field."""
        return self._made(
            f"{CHILD}:marginals",
            [window.scores, window.guide],
            window.scores.shape,
            place=[window.y, window.x],
            parameters=parameters.as_dict(),
        )

    def _number(self, model: DeviceModel) -> int:
        number = self._numbers.get(model)
        if number is None:
            raise DeviceLostError("the model is not on the device")
        return number

    def _made(self, target: str, given: Sequence[Floats], shape: Sequence[int], **more: Any) -> Floats:
        """Have one array made of others, all through shared memory."""
        begins = shared_memory.places(
            [*(values.nbytes for values in given), FLOAT.itemsize * math.prod(shape)]
        )
        room = self._memory.room(begins[-1])
        *taken, result = (
            described(FLOAT, one, at)
            for one, at in zip([*(values.shape for values in given), shape], begins, strict=False)
        )
        for values, where in zip(given, taken, strict=True):
            array_at(room, where)[:] = values
        self._ask(target, {"given": taken, "result": result, **more}, [self._memory.descriptor])
        made: Floats = array_at(room, result).copy()
        return made

    def _ask(
        self, target: str, arguments: dict[str, Any], fds: Sequence[int] = (), seconds: float | None = None
    ) -> Any:
        """Call a function of the process; what went wrong there is raised here as lanes understand it."""
        if self._pool is None:
            raise DeviceLostError("it is not open")
        try:
            answer = self._pool.call(target, arguments, fds, seconds).value
        except SegmentdError as error:
            raise DeviceLostError(error.message) from error
        if "out_of_memory" in answer:
            raise DeviceOutOfMemoryError(int(answer["out_of_memory"]))
        if "refused" in answer:
            raise DeviceRefusesError(str(answer["refused"]))
        if "lost" in answer:
            raise DeviceLostError(str(answer["lost"]))
        return answer["done"]


def _core(tile: npt.NDArray[np.generic], reach_px: int) -> tuple[int, int]:
    """Height and width of what a tile answers for."""
    return tile.shape[1] - 2 * reach_px, tile.shape[2] - 2 * reach_px
