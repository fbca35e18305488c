"""The device's side of `segmentd.engine.device_process`: what runs in the process that touches the device."""

from __future__ import annotations

import importlib
import math
import mmap
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute.feature_plan import STEP, FeaturePlan
from segmentd.compute.normalize import Scale
from segmentd.compute.packets import PacketForest
from segmentd.compute.packets.layout import RECORD
from segmentd.engine import simulated_device
from segmentd.engine.device import Batch, BatchTile, Device, DeviceLostError, DeviceOutOfMemoryError
from segmentd.engine.predictor import Predictor
from segmentd.engine.simulated_device import SimulatedDevice
from segmentd.models import bundle
from segmentd.workers import wire

Answer = tuple[Any, list[npt.NDArray[Any]]]
Target = Callable[[dict[str, Any], list[int]], Answer]

_devices: list[Device] = []
_models: dict[int, Predictor] = {}


def answered(work: Callable[[dict[str, Any], list[int]], Any]) -> Target:
    """Make a function answer with what it returns, or with how the device failed."""

    @wraps(work)
    def target(arguments: dict[str, Any], fds: list[int]) -> Answer:
        try:
            return {"done": work(arguments, fds)}, []
        except DeviceOutOfMemoryError as error:
            return {"out_of_memory": error.batch}, []
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
    use(CudaDevice(cupy, arguments["number"], arguments["name"]))


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
    steps, weights, planes, nodes, roots, trees, values = wire.map_arrays(arguments["arrays"], fds[0])
    channels, plane_count, reach, sobel_images = arguments["plan"]
    plan = FeaturePlan(channels, planes, plane_count, reach, steps.view(STEP), weights, sobel_images)
    classes, forest_planes = arguments["forest"]
    forest = PacketForest(nodes.view(RECORD), roots, classes, forest_planes, trees, values)
    model = Predictor(bundle.card_of(arguments["card"]), plan, forest)
    _devices[0].load(model)
    _models[arguments["model"]] = model


@answered
def unload(arguments: dict[str, Any], fds: list[int]) -> None:
    """Forget a model."""
    _devices[0].unload(_models.pop(arguments["model"]))


@answered
def run(arguments: dict[str, Any], fds: list[int]) -> None:
    """Compute tiles that lie in shared memory; labels and confidence go there, too."""
    memory = np.frombuffer(mmap.mmap(fds[0], 0), np.uint8)
    batch = Batch(_models[arguments["model"]], [_tile(memory, tile) for tile in arguments["tiles"]])
    for place, tile in zip(arguments["tiles"], _devices[0].run(batch), strict=True):
        result = np.stack([tile.labels, tile.confidence]).reshape(-1)
        memory[place["result"] : place["result"] + result.size] = result


def _tile(memory: npt.NDArray[np.uint8], place: dict[str, Any]) -> BatchTile:
    dtype, shape, scale = np.dtype(place["dtype"]), place["shape"], place["scale"]
    size = math.prod(shape) * dtype.itemsize
    pixels: npt.NDArray[np.generic] = memory[place["place"] : place["place"] + size].view(dtype)
    return BatchTile(
        pixels.reshape(shape),
        None if scale is None else Scale(*(np.array(values, np.float32) for values in scale)),
        np.array(place["level"], np.float32),
    )
