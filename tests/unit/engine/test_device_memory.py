"""Models on a device under a budget: brought when planes need them, kept while in use, given back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.engine import simulated_device
from segmentd.engine.device import DeviceOutOfMemoryError
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.device_memory import MemoryState
from segmentd.engine.device_turns import MemoryRules
from segmentd.engine.lane import CpuLane
from segmentd.engine.lane_group import LaneGroup
from segmentd.engine.lanes import whole_plane
from segmentd.engine.loaded import LoadedForest
from segmentd.engine.segmenter import BandResult
from segmentd.engine.simulated_device import SimulatedDevice
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.records import SegmentOptions

from .. import tiny_model

PLANE = np.random.default_rng(3).integers(0, 255, (1, 96, 96), np.uint8)
OPTIONS = SegmentOptions(tile_px=32)
NAMES = ("a", "b", "c", "d", "e", "f")


class Bench:
    """Six models, and devices with room for `places` of them."""

    def __init__(self, cpu: CpuLane, folder: Path, rules: MemoryRules, required: bool, places: float) -> None:
        self.cpu = cpu
        self.now = 0.0
        self.paths = [
            tiny_model.save(folder / f"{name}.segmodel", name, seed=i) for i, name in enumerate(NAMES)
        ]
        for path in self.paths:
            cpu.load(path)
        self.size = max(self.predictor_size(path) for path in self.paths)
        self.others = 0
        self.loads: list[str] = []
        self.device = self.make_device(places)
        self.lane = DeviceLane(self.device, cpu, required, lambda: self.now, rules)

    def predictor_size(self, path: Path) -> int:
        loaded = self.cpu.model(path)
        assert isinstance(loaded, LoadedForest)
        return loaded.predictor.size_bytes

    def make_device(self, places: float, number: int = 0) -> SimulatedDevice:
        device = SimulatedDevice(
            simulated_device.parse(f"memory:{int(places * self.size)}"), lambda seconds: None, number
        )
        load, free = device.load, device.free_bytes
        device.load = lambda model: (self.loads.append(model.card.id), load(model))[1]  # type: ignore[method-assign,func-returns-value]
        device.free_bytes = lambda: (free() or 0) - self.others  # type: ignore[method-assign]
        return device

    def segment(self, number: int, lane: DeviceLane | LaneGroup | None = None) -> BandResult:
        path = self.paths[number]
        done = whole_plane(PLANE, (lane or self.lane).segment(path, ArraySource(PLANE), OPTIONS))
        assert_array_equal(done.labels, self.cpu.segment_array(path, PLANE, OPTIONS).labels)
        return done

    def memory(self) -> MemoryState:
        state = self.lane.devices()[0].memory
        assert state is not None
        return state


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    cpu = CpuLane(2)

    def make(places: float = 3, required: bool = False, **rules: object) -> Bench:
        return Bench(cpu, tmp_path, MemoryRules(**{"budget": "100%", **rules}), required, places)  # type: ignore[arg-type]

    yield make
    cpu.close()


def test_models_stay_until_others_need_the_room(bench: Callable[..., Bench]) -> None:
    made = bench()
    for number in (0, 1, 2, 0, 1, 2, 0):
        assert made.segment(number).device == "simulated:0"
    assert made.loads == ["a", "b", "c"]
    made.segment(3)  # b was used longest ago
    assert set(made.memory().models) == {"a", "c", "d"}
    assert made.memory().held_bytes <= made.memory().budget_bytes
    assert made.memory().loads == 4


def test_the_budget_may_be_less_than_the_device_has(bench: Callable[..., Bench]) -> None:
    made = bench(6, budget="50%")
    for number in range(6):
        made.segment(number)
    assert made.memory().models == ("d", "e", "f")


def test_a_plane_keeps_its_model_and_others_use_the_cpu_meanwhile(bench: Callable[..., Bench]) -> None:
    made = bench(1)
    strips = made.lane.segment(made.paths[0], ArraySource(PLANE), OPTIONS)
    next(strips)
    done = made.segment(1)
    assert (done.device, "beside those in use" in done.device_reason) == ("cpu", True)
    assert made.memory().models == ("a",)
    list(strips)
    assert made.segment(1).device == "simulated:0"
    assert made.memory().models == ("b",)


def test_a_required_device_is_waited_for_but_not_for_ever(bench: Callable[..., Bench]) -> None:
    made = bench(1, required=True)
    strips = made.lane.segment(made.paths[0], ArraySource(PLANE), OPTIONS)
    next(strips)
    done: list[str] = []
    other = threading.Thread(target=lambda: done.append(made.segment(1).device))
    other.start()
    list(strips)
    other.join(60)
    assert done == ["simulated:0"]
    strips = made.lane.segment(made.paths[0], ArraySource(PLANE), OPTIONS)
    next(strips)
    timer = threading.Timer(0.1, lambda: setattr(made, "now", 11.0))
    timer.start()
    with pytest.raises(SegmentdError, match="beside those in use") as caught:
        made.segment(1)
    assert caught.value.reason is Reason.DEVICE_UNAVAILABLE
    strips.close()  # type: ignore[attr-defined]
    assert made.segment(1).device == "simulated:0"


def test_other_programs_get_memory_and_we_come_back(bench: Callable[..., Bench]) -> None:
    made = bench()
    for number in range(3):
        made.segment(number)
    made.others = 2 * made.size
    made.lane.tidy()
    assert made.memory().models == ("c",)
    assert made.segment(2).device == "simulated:0"
    made.others = 3 * made.size
    done = made.segment(0)
    assert (done.device, "are free on the device" in done.device_reason) == ("cpu", True)
    made.others = 0
    assert made.segment(0).device == "simulated:0"


def test_idle_models_go_where_asked_to(bench: Callable[..., Bench]) -> None:
    made = bench(idle_seconds=60.0)
    made.segment(0)
    made.lane.pin(made.paths[1])
    made.now = 59.0
    made.lane.tidy()
    assert set(made.memory().models) == {"a", "b"}
    made.now = 61.0
    made.lane.tidy()
    assert made.memory().models == ("b",)


def test_a_device_without_models_is_given_back_until_it_is_needed(bench: Callable[..., Bench]) -> None:
    made = bench(idle_seconds=60.0)
    made.segment(0)
    closed, close = [], made.device.close
    made.device.close = lambda: (closed.append(made.now), close())  # type: ignore[func-returns-value, method-assign]
    for now in (61.0, 62.0, 200.0):
        made.now = now
        made.lane.tidy()
    assert closed == [61.0]
    assert made.segment(0).device == "simulated:0"
    assert made.memory().models == ("a",)


def test_pinned_models_stay_and_too_many_are_refused(bench: Callable[..., Bench]) -> None:
    made = bench(2)
    made.lane.pin(made.paths[0])
    made.lane.pin(made.paths[1])
    with pytest.raises(SegmentdError, match=r"model 'c' cannot be kept: simulated:0 has no room") as caught:
        made.lane.pin(made.paths[2])
    assert caught.value.reason is Reason.DEVICE_UNAVAILABLE
    assert made.segment(2).device == "cpu"
    made.lane.unload(made.paths[0])
    made.lane.pin(made.paths[2])
    assert made.memory().models == ("b", "c")
    assert made.lane.device_of(made.paths[2]) == "simulated:0"
    assert made.lane.device_of(made.paths[3]) == "cpu"


def test_a_device_with_less_room_than_it_says_gives_up_idle_models(bench: Callable[..., Bench]) -> None:
    made = bench(3)
    load = made.device.load
    there: list[int] = []

    def crowded(model) -> None:
        if len(made.memory().models) > 1 and not there:
            there.append(1)
            raise DeviceOutOfMemoryError(0)
        load(model)

    made.segment(0)
    made.segment(1)
    made.device.load = crowded  # type: ignore[method-assign]
    assert made.segment(2).device == "simulated:0"
    assert made.memory().models == ("b", "c")


def test_models_that_planes_wait_for_go_last(bench: Callable[..., Bench]) -> None:
    made = bench()
    wanted = [str(made.paths[0])]
    made.lane = DeviceLane(
        made.make_device(3),
        made.cpu,
        clock=lambda: made.now,
        rules=MemoryRules("100%"),
        wanted=lambda: wanted,
    )
    for number in range(4):
        made.segment(number)
    assert set(made.memory().models) == {"a", "c", "d"}


def test_planes_go_to_whichever_device_is_free(bench: Callable[..., Bench]) -> None:
    made = bench()
    devices = [made.make_device(3, number) for number in range(2)]
    lanes = [DeviceLane(device, made.cpu, rules=MemoryRules("100%")) for device in devices]
    group = LaneGroup(lanes, made.cpu)
    group.load(made.paths[0])
    assert made.segment(0, group).device == "simulated:0"
    first = group.segment(made.paths[0], ArraySource(PLANE), OPTIONS)
    assert next(first).device == "simulated:0"
    assert made.segment(0, group).device == "simulated:1"
    assert [strip.device for strip in first][-1:] in ([], ["simulated:0"])
    assert made.segment(0, group).device == "simulated:0"
    assert [state.name for state in group.devices()] == ["simulated:0", "simulated:1", "cpu"]
    lanes[0].unload(made.paths[1])
    lanes[1].pin(made.paths[2])
    assert made.segment(2, group).device == "simulated:1"  # has the model
    group.pin(made.paths[3])
    assert group.device_of(made.paths[3]) == "simulated:0"
    group.unload(made.paths[3])
    assert group.device_of(made.paths[3]) == "cpu"
    assert group.at_hand(made.paths[2])
    with pytest.raises(SegmentdError, match="cannot be kept"):
        for path in made.paths[:3] + made.paths[4:]:
            group.pin(path)
    group.tidy()
    assert group.work_since() is None
