"""Which lane the configuration and the machine make."""

from __future__ import annotations

from pathlib import Path

from segmentd.engine import simulated_device
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import Lane
from segmentd.errors import ConfigurationError
from segmentd.settings import DeviceSettings

NO_GPU = "this version computes on the CPU only"


def make_lane(settings: DeviceSettings, vgg19_weights: Path | None = None) -> Lane:
    """Make the lane for `[device]`; `vgg19_weights` is what deep features are computed with.

    Raises
    ------
    ConfigurationError
        A GPU is required and there is none, or SEGMENTD_FAKE_DEVICE cannot be read.
    """
    device = simulated_device.from_environment()
    if device is not None and settings.prefer != "cpu":
        return DeviceLane(
            device, CpuLane(settings.threads, vgg19_weights=vgg19_weights), settings.require_gpu
        )
    if settings.require_gpu:
        raise ConfigurationError([f"device.require_gpu = true: must be false; {NO_GPU}"])
    why = f"device.prefer is cuda, but {NO_GPU}" if settings.prefer == "cuda" else ""
    return CpuLane(settings.threads, why, vgg19_weights)
