"""Networks on a device that fails in every way: labels are the CPU's, results say who made them and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.engine import simulated_device
from segmentd.engine.array_models import ArrayModel
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.segmenter import BandResult
from segmentd.engine.simulated_device import SimulatedDevice
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.models import files
from segmentd.records import SegmentOptions

from .. import tiny_model
from .. import tiny_networks as tiny
from . import test_volume_job as volumes

ROW = np.arange(150)[:, None] / 19
PLANE = (127 * (1 + np.sin(ROW) * np.cos(np.arange(210) / 23)))[None].astype(np.uint8)
LOST = "simulated:0 was lost (as SEGMENTD_FAKE_DEVICE asks for); computed on the CPU"


@pytest.fixture(scope="module")
def cpu() -> Iterator[CpuLane]:
    lane = CpuLane(2, for_devices=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segmentd.models.trial.run", lambda model: None)  # a process for each network
        yield lane
    lane.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def levels(cpu: CpuLane, folder: Path) -> Path:
    """A network; the plane is six rows of six tiles."""
    path = folder / "levels.czann"
    path.write_bytes(tiny.czann())
    cpu.load(path)
    return path


class Bench:
    """A lane with a device that fails as told, a clock set by hand, and how much was computed at once."""

    def __init__(self, cpu: CpuLane, model: Path, fault: str, required: bool = False) -> None:
        self.now = 0.0
        self.device = SimulatedDevice(simulated_device.parse(fault), lambda seconds: None)
        self.batches: list[int] = []
        self._evaluate = self.device.evaluate
        self.device.evaluate = self._counted  # type: ignore[method-assign]
        self.lane = DeviceLane(self.device, cpu, required, lambda: self.now)
        self.cpu, self.model = cpu, model
        self.lane.bring(model)

    def _counted(self, model: ArrayModel, values: np.ndarray) -> np.ndarray:
        self.batches.append(len(values))
        return self._evaluate(model, values)

    def segment(self, options: SegmentOptions | None = None, plane: np.ndarray = PLANE) -> BandResult:
        """Segment a plane and compare with the CPU's own result."""
        options = options or SegmentOptions()
        done = whole_plane(plane, self.lane.segment(self.model, ArraySource(plane), options))
        expected = self.cpu.segment_array(self.model, plane, options)
        assert_array_equal(done.labels, expected.labels)
        assert_array_equal(done.confidence, expected.confidence)
        return done

    def who(self, options: SegmentOptions | None = None) -> tuple[str, str]:
        done = self.segment(options)
        return done.device, done.device_reason


def test_a_network_is_tried_and_then_does_everything_on_the_device(cpu: CpuLane, levels: Path) -> None:
    made = Bench(cpu, levels, "slow:3")
    assert made.lane.device_of(levels) == "simulated:0" and made.lane.at_hand(levels)
    assert made.batches == [8]  # the trial
    assert made.who() == ("simulated:0", "")
    assert made.batches[1:] == [6] * 6
    assert_array_equal(made.segment().labels, tiny.expected(PLANE[0], 255))
    assert made.lane.work_since() is None
    assert np.unique(made.segment().labels).tolist() == [1, 2, 3]


def test_less_at_once_when_memory_runs_out(cpu: CpuLane, levels: Path) -> None:
    made = Bench(cpu, levels, "oom_above:4")
    assert made.who() == ("simulated:0", "")
    assert made.batches[:4] == [8, 4, 6, 3]  # the trial finds room for four
    assert set(made.batches[4:]) == {3}
    made.now = 61.0
    made.batches.clear()
    assert made.who() == ("simulated:0", "")
    assert made.batches[:2] == [6, 3]  # it was tried once more


def test_the_cpu_takes_over_what_has_no_room(cpu: CpuLane, levels: Path) -> None:
    made = Bench(cpu, levels, "oom_always")
    assert made.batches == [8, 4, 2, 1]
    why = "simulated:0 is out of memory (out of memory for the model); computed on the CPU"
    assert made.who() == ("cpu", why)
    assert made.lane.device_of(levels) == "cpu" and not made.lane.at_hand(levels)


def test_a_lost_device_is_tried_again_later(cpu: CpuLane, levels: Path) -> None:
    made = Bench(cpu, levels, "lost_after:10")
    assert made.who() == ("simulated:0", "")
    assert made.who() == ("simulated:0+cpu", LOST)
    assert made.who() == ("cpu", LOST)
    made.now = 1.0
    assert made.who() == ("simulated:0", "")
    assert made.lane.devices()[1].reason == ""


def test_values_that_are_not_numbers_are_computed_again(cpu: CpuLane, levels: Path) -> None:
    made = Bench(cpu, levels, "nan_after:4")
    device, reason = made.who()
    assert device == "simulated:0+cpu" and "values that are not numbers" in reason
    made.now = 1.0
    assert made.who()[0] == "simulated:0+cpu"  # three batches more, beside the trial


def test_values_that_the_network_itself_makes_are_no_fault(
    cpu: CpuLane, levels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Bench(cpu, levels, "slow:0")
    network: Any = cpu.model(levels)
    right = network._network.scores

    def in_the_dark(tiles: np.ndarray) -> np.ndarray:
        return np.where(tiles.transpose(0, 2, 3, 1) < 0.1, np.nan, right(tiles))

    monkeypatch.setattr(network._network, "scores", in_the_dark)
    done = made.segment()
    assert (done.device, done.device_reason) == ("simulated:0", "")
    assert (done.labels == 0).any() and done.labels.any()


def test_a_network_that_finds_something_else_on_the_device_is_not_used_there(
    cpu: CpuLane, levels: Path
) -> None:
    made = Bench(cpu, levels, "slow:0")
    made.lane.give_back()
    evaluate = made.device.evaluate
    made.device.evaluate = lambda *given: evaluate(*given)[..., ::-1]  # type: ignore[method-assign]
    device, reason = made.who()
    assert device == "cpu"
    assert "simulated:0 cannot compute the model (model 'levels': only" in reason and "99.9 % are" in reason
    made.device.evaluate = evaluate  # type: ignore[method-assign]
    made.now = 1.0
    assert made.who() == ("simulated:0", "")


@pytest.mark.parametrize("fault", ["oom_always", "lost_after:0", "nan_after:0", "lost_after:3"])
def test_a_required_device_that_fails_is_not_replaced(cpu: CpuLane, levels: Path, fault: str) -> None:
    with pytest.raises(SegmentdError, match=r"device\.require_gpu forbids the CPU") as caught:
        Bench(cpu, levels, fault, required=True).segment()
    assert caught.value.reason is Reason.DEVICE_UNAVAILABLE


def test_scores_come_from_the_device_even_if_it_is_required(cpu: CpuLane, levels: Path) -> None:
    made = Bench(cpu, levels, "slow:0", required=True)
    made.batches.clear()
    found = list(made.lane.scores(levels, ArraySource(PLANE), SegmentOptions()))
    expected = {part.region: part.scores for part in cpu.scores(levels, ArraySource(PLANE), SegmentOptions())}
    for part in found:
        assert_array_equal(part.scores, expected[part.region])
    assert sum(made.batches) == 36  # tiles


def test_the_field_of_a_network_is_on_the_device_too(cpu: CpuLane, levels: Path) -> None:
    field = SegmentOptions(postprocessing="crf", confidence="marginal")
    made = Bench(cpu, levels, "slow:0", required=True)
    assert made.who(field) == ("simulated:0", "")
    made = Bench(cpu, levels, "lost_after:2")
    assert made.who(field) == ("simulated:0+cpu", LOST)
    made.now = 1.0
    made.device._fault = simulated_device.parse("slow:0")
    assert made.who(field) == ("simulated:0", "")


def test_the_probabilities_of_a_forest_and_its_field_are_on_the_device(cpu: CpuLane, folder: Path) -> None:
    path = tiny_model.save(folder / "cells.segmodel")
    cpu.load(path)
    field = SegmentOptions(postprocessing="crf", confidence="marginal")
    made = Bench(cpu, path, "slow:0", required=True)
    assert made.who(field) == ("simulated:0", "")
    found = list(made.lane.scores(path, ArraySource(PLANE), SegmentOptions()))
    expected = {part.region: part.scores for part in cpu.scores(path, ArraySource(PLANE), SegmentOptions())}
    for part in found:
        assert_array_equal(part.scores, expected[part.region])
    assert Bench(cpu, path, "lost_after:1").who(field) == ("simulated:0+cpu", LOST)
    assert Bench(cpu, path, "oom_always").who(field)[0] == "cpu"
    with pytest.raises(SegmentdError, match="require_gpu"):
        Bench(cpu, path, "nan_after:0", required=True).segment(field)


def test_a_field_that_finds_something_else_on_the_device_is_not_used_there(
    cpu: CpuLane, levels: Path
) -> None:
    made = Bench(cpu, levels, "slow:0")
    marginals = made.device.marginals
    made.device.marginals = lambda *given: marginals(*given)[::-1]  # type: ignore[method-assign]
    device, reason = made.who(SegmentOptions(postprocessing="crf"))
    assert device == "simulated:0+cpu" and "the conditional random field: only" in reason


def test_planes_of_a_stack_and_images_too(cpu: CpuLane, folder: Path) -> None:
    volume = volumes.package(folder)
    cpu.load(volume)
    assert Bench(cpu, volume, "oom_above:1").who() == ("simulated:0", "")
    changes = {"InputShape": [32, 32, 1], "OutputShape": [32, 32, 1], "Type": "Regression", "Classes": None}
    path = folder / "half.czann"
    path.write_bytes(tiny.czann(tiny.half(), **changes))
    cpu.load(path)
    done = Bench(cpu, path, "oom_above:2").segment()
    assert done.device == "simulated:0" and done.image is not None
    assert np.abs(done.image[0] - (0.5 * PLANE[0] + 25.5)).max() <= 0.51


def test_what_a_network_takes_is_seen_when_it_is_there(cpu: CpuLane, levels: Path) -> None:
    made = Bench(cpu, levels, "memory:1000000000")
    model = cpu.model(levels).on_device
    assert model is not None
    foreseen = model.size_bytes
    assert foreseen == len(files.load(levels).network) + 8 * 32 * 48 * 1024  # type: ignore[union-attr]
    made.lane.give_back()
    left = iter([10**9, 10**9, 10**9])  # opened, asked for, before it was brought
    made.device.free_bytes = lambda: next(left, 10**9 - 5_000_000)  # type: ignore[method-assign]
    assert made.who() == ("simulated:0", "")
    memory = made.lane.devices()[0].memory
    assert memory is not None and memory.held_bytes == 5_000_000


def test_a_network_without_room_is_computed_on_the_cpu(cpu: CpuLane, levels: Path) -> None:
    device, reason = Bench(cpu, levels, "memory:1000000").who()
    assert device == "cpu" and "has no room for the model" in reason


def test_pieces_of_a_plane_that_was_given_up_hold_nothing(cpu: CpuLane, levels: Path) -> None:
    made = Bench(cpu, levels, "slow:0")
    tall = np.tile(PLANE, (1, 10, 1))
    strips = made.lane.segment(levels, ArraySource(tall), SegmentOptions())
    next(strips)
    strips.close()  # type: ignore[attr-defined]
    made.segment()
    made.lane._turns.tidy()
    made.lane.forget_unloaded()
    assert made.lane._turns._memory._residency._resident[cpu.model(levels).on_device].leases == 0


def test_a_lane_without_what_devices_need_computes_networks_itself(levels: Path) -> None:
    lane = CpuLane(1)
    try:
        lane.load(levels)
        made = Bench(lane, levels, "lost_after:0")
        done = made.segment()
        assert (done.device, "was not given the network" in done.device_reason) == ("cpu", True)
    finally:
        lane.close()
