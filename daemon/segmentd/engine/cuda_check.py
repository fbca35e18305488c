"""Which cards give the CPU's labels: a test segmentation on each, in a process that may die of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import ModuleType

from segmentd.engine import selftest
from segmentd.engine.cuda_device import CudaDevice
from segmentd.engine.device import Device
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.source import ArraySource
from segmentd.errors import SegmentdError
from segmentd.models import bundle
from segmentd.process.gpu_probe import Probe, probe
from segmentd.records import SegmentOptions

EDGE_PX = 300
_CHILD = """
import cupy
from segmentd.engine.cuda_check import tell

tell(cupy)
"""


def find_cards() -> Probe:
    """The cards of this machine, each with its fault if it has one; without CuPy nothing is imported."""
    return probe(_CHILD)


def tell(cupy: ModuleType) -> None:
    """Try every card, and print what `gpu_probe.ask` reads."""
    cards = []
    for number in range(cupy.cuda.runtime.getDeviceCount()) if cupy.cuda.is_available() else ():
        name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
        with cupy.cuda.Device(number):
            free, total = cupy.cuda.runtime.memGetInfo()
        fault = fault_of(CudaDevice(cupy, number, name))
        cards.append({"name": name, "free": free, "total": total, "fault": fault})
    print(json.dumps(cards))


def fault_of(device: Device) -> str:
    """Why a device is not to be used; empty where its labels are the CPU's."""
    model = selftest.test_model()
    plane = selftest.made_up_plane(1, model.card.pixel_type, EDGE_PX)
    cpu = CpuLane(1)
    try:
        with tempfile.TemporaryDirectory(prefix="segmentd-card-") as folder:
            path = Path(folder) / "self-test.segmodel"
            bundle.save(model, path)
            lane = DeviceLane(device, cpu, required=True)
            lane.load(path)
            found = whole_plane(plane, lane.segment(path, ArraySource(plane), SegmentOptions(tile_px=128)))
            expected = cpu.segment_array(path, plane, SegmentOptions())
    except SegmentdError as error:
        return f"its test failed: {error.message.partition(', and device.require_gpu')[0]}"
    finally:
        cpu.close()
    different = int((found.labels != expected.labels).sum())
    return f"in its test {different} of {plane.size} labels were wrong" if different else ""
