"""Which lane the configuration and the machine make."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segmentd.engine import simulated_device
from segmentd.engine.device import Device
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.device_turns import MemoryRules
from segmentd.engine.lane import CpuLane
from segmentd.engine.lane_group import LaneGroup
from segmentd.engine.lanes import Lane
from segmentd.errors import ConfigurationError
from segmentd.settings import DeviceSettings

NO_GPU = "this version computes on the CPU only"


def make_lane(settings: DeviceSettings, wanted: Callable[[], Sequence[str]] = tuple) -> Lane:
    """Make the lane for `[device]`.

    Parameters
    ----------
    settings : DeviceSettings
        The table.
    wanted : callable
        Files of the models that planes wait for, the next one first.

    Raises
    ------
    ConfigurationError
        A GPU is required and there is none, or SEGMENTD_FAKE_DEVICE cannot be read.
    """
    devices = devices_of(settings)
    if devices:
        cpu = CpuLane(settings.threads)
        rules = MemoryRules(settings.memory_budget, settings.give_back_seconds)
        lanes = [
            DeviceLane(device, cpu, settings.require_gpu, rules=rules, wanted=wanted) for device in devices
        ]
        return lanes[0] if len(lanes) == 1 else LaneGroup(lanes, cpu)
    if settings.require_gpu:
        raise ConfigurationError([f"device.require_gpu = true: must be false; {NO_GPU}"])
    why = f"device.prefer is cuda, but {NO_GPU}" if settings.prefer == "cuda" else ""
    return CpuLane(settings.threads, why)


def devices_of(settings: DeviceSettings) -> Sequence[Device]:
    """The devices beside the CPU that are wanted and there.

    Raises
    ------
    ConfigurationError
        SEGMENTD_FAKE_DEVICE cannot be read.
    """
    return simulated_device.from_environment() if settings.prefer != "cpu" else []
