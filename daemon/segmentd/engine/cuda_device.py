"""An NVIDIA card through CuPy: tiles go up, labels and confidence come down, two tiles at a time overlap.

Networks are run there by their own libraries (`card_networks`). Nothing here imports CuPy: its namespace is
given. Never run on a card so far; tests drive it with numpy's
arrays and the kernels compiled for the processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute import crf, crf_arrays
from segmentd.compute.cuda import source
from segmentd.compute.cuda.tiles import TileProgram
from segmentd.compute.fast_features import Floats
from segmentd.compute.on_card import OnCard
from segmentd.engine.array_models import ArrayModel
from segmentd.engine.card_networks import CardNetworks
from segmentd.engine.device import (
    Batch,
    BatchTile,
    DeviceLostError,
    DeviceModel,
    DeviceOutOfMemoryError,
    DeviceTile,
)
from segmentd.engine.device_memory import DEFAULT_BUDGET
from segmentd.engine.predictor import Predictor
from segmentd.settings.values import memory_bytes

MAX_BATCH = 16
THREADS_PER_BLOCK = 128
STREAMS = 2
# Left free for the planes of features of the tiles in work, when models are given room.
WORKING_BYTES = 256 << 20

Array = Any  # of the namespace


class _Lane:
    """One of the streams, with page-locked memory that grows to the largest tile it has seen."""

    def __init__(self, xp: ModuleType) -> None:
        self._xp = xp
        self.stream = xp.cuda.Stream(non_blocking=True)
        self._memory: Any = None
        self._size = 0
        self.pending: tuple[int, npt.NDArray[np.uint8]] | None = None

    def locked(self, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0) -> npt.NDArray[Any]:
        """An array in page-locked memory, `offset` bytes behind its start."""
        count = int(np.prod(shape))
        wanted = offset + count * dtype.itemsize
        if wanted > self._size:
            self._memory, self._size = self._xp.cuda.alloc_pinned_memory(wanted), wanted
        return np.frombuffer(self._memory, dtype, count, offset).reshape(shape)


class CudaDevice:
    """A card; see `segmentd.engine.device.Device` for the calls.

    Parameters
    ----------
    xp : module
        CuPy.
    number : int
        Which card.
    display_name : str
        What it calls itself.
    budget : str
        What models may take, as for `DeviceMemory`; no library of networks may take more by itself.
    """

    def __init__(self, xp: ModuleType, number: int, display_name: str, budget: str = DEFAULT_BUDGET) -> None:
        self.name = f"cuda:{number}"
        self.display_name = display_name
        self.max_batch = MAX_BATCH
        self._xp = xp
        self._number = number
        self._module: Any = None
        self._budget = budget
        self._card = OnCard(number, 0)
        self._programs: dict[Predictor, TileProgram] = {}
        self._networks = CardNetworks()
        self._lanes: list[_Lane] = []

    def open(self) -> None:
        """Compile the kernels, and forget what was there."""
        with self._errors(0):
            self._programs.clear()
            self._networks.clear()
            self._module = self._xp.RawModule(code=source.source(), options=source.OPTIONS, backend="nvrtc")
            self._module.compile()
            self._lanes = [_Lane(self._xp) for _ in range(STREAMS)]
        self._card = OnCard(self._number, memory_bytes(self._budget, self.free_bytes()))

    def free_bytes(self) -> int | None:
        """Free memory of the card and of our own pool, less what tiles need."""
        with self._errors(0):
            free, _ = self._xp.cuda.runtime.memGetInfo()
            return int(free + self._xp.get_default_memory_pool().free_bytes() - WORKING_BYTES)

    def load(self, model: DeviceModel) -> None:
        """Bring a model to the card."""
        with self._errors(0):
            if isinstance(model, Predictor):
                self._programs[model] = TileProgram(self._xp, self.launch, model.plan, model.forest)
            else:
                self._networks.load(model, self._card)

    def unload(self, model: DeviceModel) -> None:
        """Free its memory, for other programs too."""
        with self._errors(0):
            if isinstance(model, Predictor):
                self._programs.pop(model, None)
            else:
                self._networks.unload(model)
            self._xp.get_default_memory_pool().free_all_blocks()

    def prepared(self, batch: Batch) -> AbstractContextManager[Batch]:
        """As it is: tiles go to page-locked memory one by one, while others are computed."""
        return nullcontext(batch)

    def run(self, batch: Batch) -> list[DeviceTile]:
        """Compute a batch: while one tile is computed, the next goes up and the one before comes down."""
        done: dict[int, DeviceTile] = {}
        with self._errors(len(batch.tiles)):
            program = self._programs.get(batch.model)
            if program is None:
                raise DeviceLostError("the model is not on the device")
            try:
                for number in range(len(batch.tiles)):
                    lane = self._lanes[number % STREAMS]
                    done |= _collected(lane)
                    self._start(lane, program, batch, number)
                for lane in self._lanes:
                    done |= _collected(lane)
            finally:
                for lane in self._lanes:
                    lane.pending = None
        return [done[number] for number in range(len(batch.tiles))]

    def scores(self, model: Predictor, tile: BatchTile) -> Floats:
        """Compute the probabilities of classes in a tile; it is waited for."""
        with self._errors(1):
            program = self._programs.get(model)
            if program is None:
                raise DeviceLostError("the model is not on the device")
            scores = program.scores(self._xp.asarray(tile.pixels), tile.scale, tile.level)
            found: Floats = self._xp.asnumpy(scores)
            return found

    def evaluate(self, model: ArrayModel, values: Floats) -> Floats:
        """Compute what a network makes of arrays, by its library, which copies them up and down."""
        with self._errors(len(values)):
            return self._networks.evaluate(model, values)

    def marginals(self, window: crf.Window, parameters: crf.Parameters) -> Floats:
        """Put a window through the conditional random field."""
        with self._errors(1):
            found: Floats = self._xp.asnumpy(crf_arrays.infer(self._xp, window, parameters))
            return found

    def close(self) -> None:
        """Give back all memory of the card."""
        with self._errors(0):
            self._programs.clear()
            self._networks.clear()
            self._lanes.clear()
            self._xp.get_default_memory_pool().free_all_blocks()

    def _start(self, lane: _Lane, program: TileProgram, batch: Batch, number: int) -> None:
        """Queue the upload, the kernels and the download of a tile."""
        given, reach = batch.tiles[number], 2 * batch.model.reach_px
        tile = given.pixels
        height, width = tile.shape[1] - reach, tile.shape[2] - reach
        start = 2 * height * width  # labels and confidence come before it
        start += -start % 64
        room = lane.locked(np.dtype(np.uint8), (start + tile.nbytes,))
        above = room[start:].view(tile.dtype).reshape(tile.shape)
        above[:] = tile
        below = room[: 2 * height * width].reshape(2, height, width)
        with lane.stream:
            pixels = self._xp.empty(tile.shape, tile.dtype)
            pixels.set(above, stream=lane.stream)
            results = program.run(pixels, given.scale, given.level)
            for result, place in zip(results, below, strict=True):
                result.get(stream=lane.stream, out=place, blocking=False)
        lane.pending = number, below

    def launch(self, kernel: str, count: int, *arguments: Any) -> None:
        """Start a kernel on the current stream; see `segmentd.compute.cuda.tiles.Launch`."""
        blocks = -(-count // THREADS_PER_BLOCK)
        given = tuple(np.uint64(0) if argument is None else argument for argument in arguments)
        self._module.get_function(kernel)((blocks,), (THREADS_PER_BLOCK,), given)

    @contextmanager
    def _errors(self, batch: int) -> Iterator[None]:
        """Work on this card; what goes wrong is told as lanes understand it."""
        cuda = self._xp.cuda
        try:
            with cuda.Device(self._number):
                yield
        except cuda.memory.OutOfMemoryError as error:
            self._xp.get_default_memory_pool().free_all_blocks()
            raise DeviceOutOfMemoryError(batch) from error
        except (RuntimeError, cuda.compiler.CompileException) as error:  # CUDA's own, and missing libraries
            raise DeviceLostError(str(error)) from error


def _collected(lane: _Lane) -> dict[int, DeviceTile]:
    """The tile that a stream was working on, if any, and its number."""
    if lane.pending is None:
        return {}
    lane.stream.synchronize()
    number, (labels, confidence) = lane.pending
    lane.pending = None
    return {number: DeviceTile(labels.copy(), confidence.copy())}
