"""A device in a process of its own: whatever a driver does to that process, the daemon goes on.

Only that process touches the device. Where it crashes or does not answer in time the device counts as lost,
and opening it anew starts another process; that also mends what CUDA calls a broken context, which nothing
inside the old process can. Tiles and results lie in memory that both processes see.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute import crf
from segmentd.compute.fast_features import Floats
from segmentd.engine import model_messages
from segmentd.engine.array_models import ArrayModel
from segmentd.engine.device import (
    Batch,
    BatchTile,
    DeviceLostError,
    DeviceModel,
    DeviceOutOfMemoryError,
    DeviceRefusesError,
    DeviceTile,
)
from segmentd.engine.predictor import Predictor
from segmentd.engine.shared_memory import Place, SharedMemory, array_at
from segmentd.errors import SegmentdError
from segmentd.workers import WorkerPool, wire

CHILD = "segmentd.engine.device_child"
ADVICE = "another process takes its place later"
Pixels = npt.NDArray[np.generic]
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
        self._areas: list[SharedMemory] = []  # that no batch lies in
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
        while self._areas:
            self._areas.pop().close()
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

    @contextmanager
    def prepared(self, batch: Batch) -> Iterator[Batch]:
        """Copy tiles to memory that the process sees, an area for each batch."""
        with self._area() as area:
            yield _laid_out(batch, area)

    def run(self, batch: Batch) -> list[DeviceTile]:
        """Have a batch computed."""
        if not isinstance(batch, _LaidOut):
            with self.prepared(batch) as ready:
                return self.run(ready)
        tiles = [
            {"pixels": pixels, "result": result, **_grey(tile)}
            for tile, pixels, result in zip(batch.tiles, batch.pixels, batch.results, strict=True)
        ]
        arguments = {"model": self._number(batch.model), "tiles": tiles}
        self._ask(f"{CHILD}:run", arguments, [batch.area.descriptor])
        return [DeviceTile(*array_at(batch.area.bytes, where).copy()) for where in batch.results]

    def scores(self, model: Predictor, tile: BatchTile) -> Floats:
        """Have the probabilities of classes in a tile computed."""
        core = tile.cut(model.reach_px).core
        shape = (model.forest.class_count, core.height, core.width)
        return self._made(f"{CHILD}:scores", [tile.pixels], shape, model=self._number(model), **_grey(tile))

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

    @contextmanager
    def _area(self) -> Iterator[SharedMemory]:
        area = self._areas.pop() if self._areas else SharedMemory()
        try:
            yield area
        finally:
            self._areas.append(area)

    def _number(self, model: DeviceModel) -> int:
        number = self._numbers.get(model)
        if number is None:
            raise DeviceLostError("the model is not on the device")
        return number

    def _made(self, target: str, given: Sequence[Pixels], shape: Sequence[int], **more: Any) -> Floats:
        """Have one array made of others, all through shared memory."""
        with self._area() as area:
            *taken, result = area.lay_out(
                [*((values.dtype, values.shape) for values in given), (FLOAT, shape)]
            )
            for values, where in zip(given, taken, strict=True):
                array_at(area.bytes, where)[:] = values
            self._ask(target, {"given": taken, "result": result, **more}, [area.descriptor])
            made: Floats = array_at(area.bytes, result).copy()
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


@dataclass(frozen=True)
class _LaidOut(Batch):
    """A batch in shared memory, and where tiles and results (labels, confidence) lie there."""

    area: SharedMemory
    pixels: Sequence[Place]
    results: Sequence[Place]


def _grey(tile: BatchTile) -> dict[str, Any]:
    """How grey values of a tile are scaled."""
    scale = tile.scale and [tile.scale.offset.tolist(), tile.scale.divisor.tolist()]
    return {"scale": scale, "level": tile.level.tolist()}


def _laid_out(batch: Batch, area: SharedMemory) -> _LaidOut:
    around, count = 2 * batch.model.reach_px, len(batch.tiles)
    arrays = [tile.pixels for tile in batch.tiles]
    results = [(BYTE, (2, one.shape[1] - around, one.shape[2] - around)) for one in arrays]
    places = area.lay_out([*((one.dtype, one.shape) for one in arrays), *results])
    for pixels, where in zip(arrays, places, strict=False):
        array_at(area.bytes, where)[:] = pixels
    return _LaidOut(batch.model, batch.tiles, area, places[:count], places[count:])
