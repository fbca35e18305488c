"""Which lane the configuration and the machine make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from segmentd.engine import simulated_device
from segmentd.engine.device import Device
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.device_process import CHILD, DeviceProcess, Opener
from segmentd.engine.device_turns import MemoryRules
from segmentd.engine.lane import CpuLane
from segmentd.engine.lane_group import LaneGroup
from segmentd.engine.lanes import Lane
from segmentd.errors import ConfigurationError
from segmentd.process import gpu_probe
from segmentd.process.gpu_probe import Probe
from segmentd.settings import DeviceSettings


def make_lane(
    settings: DeviceSettings,
    vgg19_weights: Path | None = None,
    wanted: Callable[[], Sequence[str]] = tuple,
) -> Lane:
    """Make the lane for `[device]`.

    Parameters
    ----------
    settings : DeviceSettings
        The table.
    vgg19_weights : Path, optional
        What deep features are computed with.
    wanted : callable
        Files of the models that planes wait for, the next one first.

    Raises
    ------
    ConfigurationError
        A GPU is required and there is none, or SEGMENTD_FAKE_DEVICE cannot be read.
    """
    devices, why_none = devices_of(settings)
    if devices:
        cpu = CpuLane(settings.threads, vgg19_weights=vgg19_weights, for_devices=True)
        rules = MemoryRules(settings.memory_budget, settings.give_back_seconds)
        lanes = [
            DeviceLane(device, cpu, settings.require_gpu, rules=rules, wanted=wanted) for device in devices
        ]
        return lanes[0] if len(lanes) == 1 else LaneGroup(lanes, cpu)
    if settings.require_gpu:
        raise ConfigurationError([f"device.require_gpu = true: must be false here; {why_none}"])
    why = f"device.prefer is cuda, but {why_none}" if settings.prefer == "cuda" else ""
    return CpuLane(settings.threads, why, vgg19_weights)


def look_for_cards() -> Probe:
    """The cards of this machine, after a test in a process of its own. CuPy is never imported in this one."""
    from segmentd.engine.cuda_check import find_cards

    return find_cards()


def devices_of(
    settings: DeviceSettings, look: Callable[[], Probe] = look_for_cards
) -> tuple[Sequence[Device], str]:
    """The devices beside the CPU that are wanted and can be used, and why there are none.

    `look` finds the cards, where they are wanted.

    Raises
    ------
    ConfigurationError
        SEGMENTD_FAKE_DEVICE cannot be read.
    """
    if settings.prefer == "cpu":
        return [], "device.prefer is cpu"
    faults = simulated_device.from_environment()
    if faults:
        return [_simulated(number, fault) for number, fault in enumerate(faults)], ""
    if not gpu_probe.has_cupy():
        return [], gpu_probe.NO_CUPY
    return _cards(look(), settings.memory_budget)


def _cards(found: Probe, budget: str) -> tuple[Sequence[Device], str]:
    """Cards that have passed their test."""
    from segmentd.engine.cuda_device import MAX_BATCH

    sound = [(number, card) for number, card in enumerate(found.cards) if not card.fault]
    if not sound:
        faults = [f"{card.name}: {card.fault}" for card in found.cards]
        return [], "; ".join(faults) or found.reason
    return [
        DeviceProcess(
            Opener(f"{CHILD}:open_card", {"number": number, "name": card.name, "budget": budget}),
            f"cuda:{number}",
            card.name,
            MAX_BATCH,
        )
        for number, card in sound
    ], ""


def _simulated(number: int, fault: str) -> Device:
    opener = Opener(f"{CHILD}:open_simulated", {"number": number, "fault": fault})
    names = simulated_device.names(simulated_device.parse(fault), number)
    return DeviceProcess(opener, *names, simulated_device.MAX_BATCH)
