"""A device in a process of its own: whatever a driver does to that process, the daemon goes on.

Only that process touches the device. Where it crashes or does not answer in time the device counts as lost,
and opening it anew starts another process; that also mends what CUDA calls a broken context, which nothing
inside the old process can. Tiles and results lie in memory that both processes see.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.engine.device import Batch, DeviceLostError, DeviceOutOfMemoryError, DeviceTile
from segmentd.engine.predictor import Predictor
from segmentd.errors import SegmentdError
from segmentd.models import bundle
from segmentd.workers import WorkerPool, wire

CHILD = "segmentd.engine.device_child"
ADVICE = "another process takes its place later"
ALIGNMENT = 64


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
        self._areas: list[_SharedMemory] = []  # that no batch lies in
        self._numbers: dict[Predictor, int] = {}
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

    def load(self, model: Predictor) -> None:
        """Send a model over."""
        plan, forest = model.plan, model.forest
        records = plan.steps.view(np.uint8), plan.weights, plan.plane_of_feature, forest.nodes.view(np.uint8)
        described, memory = wire.pack_arrays([*records, forest.roots, forest.leaf_trees, forest.leaf_values])
        number = next(self._next_number)
        arguments = {
            "model": number,
            "card": bundle.manifest_of(model.card),
            "plan": [plan.channel_count, plan.plane_count, plan.reach_px, plan.sobel_images],
            "forest": [forest.class_count, forest.plane_count],
            "arrays": described,
        }
        try:
            self._ask(f"{CHILD}:load", arguments, [] if memory is None else [memory])
        finally:
            if memory is not None:
                os.close(memory)
        self._numbers[model] = number

    def unload(self, model: Predictor) -> None:
        """Have the process forget a model."""
        number = self._numbers.pop(model, None)
        if number is not None:
            self._ask(f"{CHILD}:unload", {"model": number})

    @contextmanager
    def prepared(self, batch: Batch) -> Iterator[Batch]:
        """Copy tiles to memory that the process sees, an area for each batch."""
        area = self._areas.pop() if self._areas else _SharedMemory()
        try:
            yield _laid_out(batch, area)
        finally:
            self._areas.append(area)

    def run(self, batch: Batch) -> list[DeviceTile]:
        """Have a batch computed."""
        if not isinstance(batch, _LaidOut):
            with self.prepared(batch) as ready:
                return self.run(ready)
        number = self._numbers.get(batch.model)
        if number is None:
            raise DeviceLostError("the model is not on the device")
        tiles = [
            {
                "dtype": tile.pixels.dtype.name,
                "shape": tile.pixels.shape,
                "scale": tile.scale and [tile.scale.offset.tolist(), tile.scale.divisor.tolist()],
                "level": tile.level.tolist(),
                "place": place,
                "result": result,
            }
            for tile, place, result in zip(batch.tiles, batch.places, batch.results, strict=True)
        ]
        self._ask(f"{CHILD}:run", {"model": number, "tiles": tiles}, [batch.area.descriptor])
        return [
            DeviceTile(*batch.area.bytes[place : place + 2 * math.prod(core)].reshape(2, *core).copy())
            for core, place in zip(batch.cores, batch.results, strict=True)
        ]

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
        if "lost" in answer:
            raise DeviceLostError(str(answer["lost"]))
        return answer["done"]


class _SharedMemory:
    """Memory that two processes see; it grows to what was needed most. It has no name to be left over."""

    def __init__(self) -> None:
        self.descriptor = -1
        self.bytes: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    def grow(self, size: int) -> None:
        """Have at least `size` bytes."""
        if self.descriptor < 0:
            self.descriptor = os.memfd_create("segmentd-tiles", os.MFD_CLOEXEC)
        if size > self.bytes.size:
            os.ftruncate(self.descriptor, size)
            self.bytes = np.frombuffer(mmap.mmap(self.descriptor, size), np.uint8)

    def close(self) -> None:
        """Give it back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor, self.bytes = -1, np.empty(0, np.uint8)


@dataclass(frozen=True)
class _LaidOut(Batch):
    """A batch in shared memory: where tiles and results begin, and height and width of the results."""

    area: _SharedMemory
    places: Sequence[int]
    results: Sequence[int]
    cores: Sequence[tuple[int, int]]


def _laid_out(batch: Batch, area: _SharedMemory) -> _LaidOut:
    around = 2 * batch.model.reach_px
    arrays = [tile.pixels for tile in batch.tiles]
    cores = [(pixels.shape[1] - around, pixels.shape[2] - around) for pixels in arrays]
    places = _places([*(pixels.nbytes for pixels in arrays), *(2 * math.prod(core) for core in cores)])
    area.grow(places[-1])
    for pixels, place in zip(arrays, places, strict=False):
        area.bytes[place : place + pixels.nbytes].view(pixels.dtype).reshape(pixels.shape)[:] = pixels
    results = places[len(arrays) : -1]
    return _LaidOut(batch.model, batch.tiles, area, places[: len(arrays)], results, cores)


def _places(sizes: Sequence[int]) -> list[int]:
    """Where pieces of these sizes begin, one behind the other, and where the last one ends."""
    places = [0]
    for size in sizes:
        places.append(places[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return places
