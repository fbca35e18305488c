"""The device's side of `segmentd.engine.device_process`: what runs in the process that touches the device."""

from __future__ import annotations

import importlib
import mmap
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute import crf
from segmentd.compute.normalize import Scale
from segmentd.engine import model_messages, simulated_device
from segmentd.engine.device import (
    Batch,
    BatchTile,
    Device,
    DeviceLostError,
    DeviceModel,
    DeviceOutOfMemoryError,
    DeviceRefusesError,
)
from segmentd.engine.predictor import Predictor
from segmentd.engine.shared_memory import Place, array_at
from segmentd.engine.simulated_device import SimulatedDevice
from segmentd.workers import wire

Answer = tuple[Any, list[npt.NDArray[Any]]]
Target = Callable[[dict[str, Any], list[int]], Answer]

_devices: list[Device] = []
_models: dict[int, DeviceModel] = {}


def answered(work: Callable[[dict[str, Any], list[int]], Any]) -> Target:
    """Make a function answer with what it returns, or with how the device failed."""

    @wraps(work)
    def target(arguments: dict[str, Any], fds: list[int]) -> Answer:
        try:
            return {"done": work(arguments, fds)}, []
        except DeviceOutOfMemoryError as error:
            return {"out_of_memory": error.batch}, []
        except DeviceRefusesError as error:
            return {"refused": str(error)}, []
        except DeviceLostError as error:
            return {"lost": str(error)}, []

    return target


def use(device: Device) -> None:
    """Open a device, which is the one of this process from now on."""
    device.open()
    _devices[:] = [device]


@answered
def open_card(arguments: dict[str, Any], fds: list[int]) -> None:
    """Open the NVIDIA card of a number."""
    from segmentd.engine.cuda_device import CudaDevice

    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceLostError(f"CuPy cannot be imported: {error}") from error
    use(CudaDevice(cupy, arguments["number"], arguments["name"], arguments["budget"]))


@answered
def open_simulated(arguments: dict[str, Any], fds: list[int]) -> None:
    """Open a device that fails as told."""
    use(SimulatedDevice(simulated_device.parse(arguments["fault"]), number=arguments["number"]))


@answered
def free_bytes(arguments: dict[str, Any], fds: list[int]) -> int | None:
    """What models may still take."""
    return _devices[0].free_bytes()


@answered
def load(arguments: dict[str, Any], fds: list[int]) -> None:
    """Load a model."""
    arrays = wire.map_arrays(arguments["arrays"], fds[0] if fds else None)
    model = model_messages.unpacked(arguments["message"], arrays)
    _devices[0].load(model)
    _models[arguments["model"]] = model


@answered
def unload(arguments: dict[str, Any], fds: list[int]) -> None:
    """Forget a model."""
    _devices[0].unload(_models.pop(arguments["model"]))


@answered
def run(arguments: dict[str, Any], fds: list[int]) -> None:
    """Compute tiles that lie in shared memory; labels and confidence go there, too."""
    memory, model = _shared(fds), _models[arguments["model"]]
    if not isinstance(model, Predictor):
        raise DeviceLostError("tiles of a forest came for a network")
    batch = Batch(model, [_tile(memory, tile["pixels"], tile) for tile in arguments["tiles"]])
    for where, tile in zip(arguments["tiles"], _devices[0].run(batch), strict=True):
        array_at(memory, where["result"])[:] = tile.labels, tile.confidence


@answered
def scores(arguments: dict[str, Any], fds: list[int]) -> None:
    """Compute the probabilities of classes in a tile; both are in shared memory."""
    memory, model = _shared(fds), _models[arguments["model"]]
    if not isinstance(model, Predictor):
        raise DeviceLostError("a tile of a forest came for a network")
    tile = _tile(memory, arguments["given"][0], arguments)
    array_at(memory, arguments["result"])[:] = _devices[0].scores(model, tile)


@answered
def evaluate(arguments: dict[str, Any], fds: list[int]) -> None:
    """Compute what a network makes of an array; both are in shared memory."""
    memory, model = _shared(fds), _models[arguments["model"]]
    if isinstance(model, Predictor):
        raise DeviceLostError("tiles of a network came for a forest")
    (values,) = (array_at(memory, where) for where in arguments["given"])
    array_at(memory, arguments["result"])[:] = _devices[0].evaluate(model, values)


@answered
def marginals(arguments: dict[str, Any], fds: list[int]) -> None:
    """Put a window, which is in shared memory, through the conditional random field."""
    memory = _shared(fds)
    scores, guide = (array_at(memory, where) for where in arguments["given"])
    window, parameters = crf.Window(scores, guide, *arguments["place"]), arguments["parameters"]
    found = _devices[0].marginals(window, crf.Parameters(**parameters))
    array_at(memory, arguments["result"])[:] = found


def _shared(fds: list[int]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(fds[0], 0), np.uint8)


def _tile(memory: npt.NDArray[np.uint8], where: Place, grey: dict[str, Any]) -> BatchTile:
    scale = grey["scale"]
    return BatchTile(
        array_at(memory, where),
        None if scale is None else Scale(*(np.array(values, np.float32) for values in scale)),
        np.array(grey["level"], np.float32),
    )
