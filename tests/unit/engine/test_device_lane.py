"""A device that fails in every way: labels are the CPU's, nothing is lost, results say who made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.engine import choice, simulated_device
from segmentd.engine.device import Batch, DeviceLostError, DeviceOutOfMemoryError, DeviceTile
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.segmenter import BandResult, Tally
from segmentd.engine.simulated_device import SimulatedDevice
from segmentd.engine.source import ArraySource
from segmentd.errors import ConfigurationError, Reason, SegmentdError
from segmentd.records import SegmentOptions
from segmentd.settings import DeviceSettings

from .. import tiny_model

PLANE = np.random.default_rng(3).integers(0, 255, (1, 200, 230), np.uint8)
SMALL_TILES = SegmentOptions(tile_px=32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.save(tmp_path_factory.mktemp("models") / "cells.segmodel")


class Bench:
    """A lane with a device that fails as told, a clock that is set by hand, and the CPU's own result."""

    def __init__(self, cpu: CpuLane, model: Path, fault: str, required: bool = False) -> None:
        self.now = 0.0
        self.device = SimulatedDevice(simulated_device.parse(fault), lambda seconds: None)
        self.lane = DeviceLane(self.device, cpu, required, lambda: self.now)
        self.batches: list[int] = []
        self._run = self.device.run
        self.device.run = self._counted  # type: ignore[method-assign]
        self.model = model
        self.lane.load(model)
        self.expected = cpu.segment_array(model, PLANE[:, :, :], SegmentOptions())

    def _counted(self, batch: Batch) -> list[DeviceTile]:
        self.batches.append(len(batch.tiles))
        return self._run(batch)

    def segment(self, options: SegmentOptions = SMALL_TILES) -> tuple[str, str]:
        """Segment the plane, compare with the CPU, and return device and reason."""
        tally = Tally(2)
        strips: list[BandResult] = []
        for strip in self.lane.segment(self.model, ArraySource(PLANE), options):
            tally.add(strip)
            strips.append(strip)
        assert_array_equal(np.concatenate([strip.labels for strip in strips]), self.expected.labels)
        assert_array_equal(np.concatenate([strip.confidence for strip in strips]), self.expected.confidence)
        return tally.device, tally.device_reason


@pytest.fixture
def bench(cpu: CpuLane, model: Path) -> Callable[..., Bench]:
    return lambda fault, required=False: Bench(cpu, model, fault, required)


def test_a_device_that_does_not_fail_does_everything(bench: Callable[..., Bench]) -> None:
    made = bench("slow:3")
    assert made.segment() == ("simulated:0", "")
    assert made.batches == [8] * 7  # 7 x 8 tiles
    assert made.lane.work_since() is None


def test_batches_become_smaller_when_memory_runs_out(bench: Callable[..., Bench]) -> None:
    made = bench("oom_above:4")
    assert made.segment() == ("simulated:0", "")
    assert made.batches == [8] + [4] * 14
    assert made.segment() == ("simulated:0", "")
    assert made.batches == [8] + [4] * 28
    made.now = 61.0
    assert made.segment() == ("simulated:0", "")
    assert made.batches[29:] == [8] + [4] * 14  # it was tried once more


def test_tiles_become_smaller_before_the_cpu_takes_over(bench: Callable[..., Bench]) -> None:
    made = bench("oom_always")
    device, reason = made.segment(SegmentOptions(tile_px=200))
    assert device == "cpu"
    assert reason == "simulated:0 is out of memory (out of memory with a batch of 1); computed on the CPU"
    # two tiles, one, one of half the edge; a quarter would be too small to be worth it
    assert made.batches == [2, 1, 1]
    assert made.segment() == ("cpu", reason)
    assert len(made.batches) == 3
    assert made.lane.devices()[0].name == "simulated:0"


def test_tiles_with_a_narrow_border_are_not_cut(bench: Callable[..., Bench], cpu: CpuLane) -> None:
    made = bench("oom_always")
    narrow = SegmentOptions(tile_px=128, border_px=2)
    made.expected = cpu.segment_array(made.model, PLANE, narrow)
    assert made.segment(narrow)[0] == "cpu"
    assert made.batches == [4, 2, 1]


def test_memory_that_one_model_lacks_is_not_denied_to_another(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    made = bench("slow:0")

    def too_large(batch: Batch) -> list[DeviceTile]:
        if batch.model.card.id == "large":
            raise DeviceOutOfMemoryError(len(batch.tiles))
        return made._run(batch)

    made.device.run = too_large  # type: ignore[method-assign]
    small, large = made.model, tiny_model.save(tmp_path / "large.segmodel", "large", seed=1)
    made.lane.load(large)
    strips = list(made.lane.segment(large, ArraySource(PLANE), SMALL_TILES))
    assert strips[-1].device == "cpu"
    made.model = small
    assert made.segment() == ("simulated:0", "")


def test_a_lost_device_is_tried_again_later(bench: Callable[..., Bench]) -> None:
    made = bench("lost_after:10")
    assert made.segment() == ("simulated:0", "")
    device, reason = made.segment()
    assert device == "simulated:0+cpu"
    assert reason == ("simulated:0 was lost (as SEGMENTD_FAKE_DEVICE asks for); computed on the CPU")
    assert made.segment() == ("cpu", reason)
    assert [state.reason != "" for state in made.lane.devices()] == [False, True]
    made.now = 1.0
    assert made.segment() == ("simulated:0", "")
    assert [state.reason for state in made.lane.devices()] == ["", ""]


def test_values_that_are_not_numbers_are_computed_again(bench: Callable[..., Bench]) -> None:
    made = bench("nan_after:5")
    device, reason = made.segment()
    assert device == "simulated:0+cpu"
    assert "values that are not numbers" in reason
    made.now = 1.0
    assert made.segment()[0] == "simulated:0+cpu"  # five more batches


def test_a_device_that_stays_away_is_tried_less_and_less_often(bench: Callable[..., Bench]) -> None:
    made = bench("slow:0")
    tries: list[float] = []

    def gone(batch: Batch) -> list[DeviceTile]:
        tries.append(made.now)
        raise DeviceLostError("it has fallen off the bus")

    made.device.run = gone  # type: ignore[method-assign]
    for now in range(0, 40):
        made.now = float(now)
        assert made.segment(SegmentOptions()) == (
            "cpu",
            "simulated:0 was lost (it has fallen off the bus); computed on the CPU",
        )
    assert tries == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0]


def test_a_device_that_cannot_be_opened_does_not_keep_models_from_loading(
    cpu: CpuLane, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(device: SimulatedDevice) -> None:
        raise DeviceLostError("no such device")

    monkeypatch.setattr(SimulatedDevice, "open", closed)
    made = Bench(cpu, model, "slow:0")
    assert made.segment()[0] == "cpu"
    monkeypatch.undo()
    made.now = 1.0
    assert made.segment()[0] == "simulated:0"


@pytest.mark.parametrize("fault", ["oom_always", "lost_after:0", "nan_after:0"])
def test_a_required_device_that_fails_is_not_replaced(bench: Callable[..., Bench], fault: str) -> None:
    made = bench(fault, required=True)
    with pytest.raises(SegmentdError, match=r"device\.require_gpu forbids the CPU") as caught:
        made.segment()
    assert caught.value.reason is Reason.DEVICE_UNAVAILABLE


def test_required_and_well_is_no_different(bench: Callable[..., Bench]) -> None:
    assert bench("oom_above:1", required=True).segment() == ("simulated:0", "")


def test_a_model_that_was_unloaded_leaves_the_device(
    bench: Callable[..., Bench], cpu: CpuLane, tmp_path: Path
) -> None:
    made = bench("slow:0")
    path = tiny_model.save(tmp_path / "other.segmodel", "other", seed=2)
    made.lane.load(path)
    gone: list[str] = []
    made.device.unload = lambda predictor: gone.append(predictor.card.id)  # type: ignore[method-assign]
    made.lane.unload(path)
    assert gone == ["other"]
    assert made.segment() == ("simulated:0", "")


def test_planes_that_are_given_up_end_at_once(model: Path) -> None:
    cpu = CpuLane(1)
    made = Bench(cpu, model, "slow:0")
    strips = made.lane.segment(model, ArraySource(np.tile(PLANE, (1, 30, 1))), SegmentOptions(tile_px=256))
    next(strips)
    made.lane.abandon()
    with pytest.raises(SegmentdError) as caught:
        list(strips)
    assert caught.value.reason is Reason.SHUTTING_DOWN
    with pytest.raises(SegmentdError):
        cpu.segment_array(model, PLANE, SegmentOptions())
    made.lane.close()


@pytest.mark.parametrize(
    "value", ["oom_above", "oom_above:x", "lost_after:-1", "slow:", "oom_always:1", "fast"]
)
def test_a_fault_that_does_not_exist_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="SEGMENTD_FAKE_DEVICE = "):
        simulated_device.parse(value)


def test_the_lane_follows_configuration_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(**keys: object) -> list[str]:
        lane = choice.make_lane(DeviceSettings.model_validate({"threads": 1, **keys}))
        lane.close()
        return [device.name for device in lane.devices()]

    monkeypatch.delenv(simulated_device.VARIABLE, raising=False)
    assert names() == ["cpu"]
    with pytest.raises(
        ConfigurationError, match=r"device\.require_gpu = true: must be false here; .*extra `gpu`"
    ):
        names(require_gpu=True)
    monkeypatch.setenv(simulated_device.VARIABLE, "oom_always")
    assert names() == names(require_gpu=True) == ["simulated:0", "cpu"]
    assert names(prefer="cpu") == ["cpu"]
