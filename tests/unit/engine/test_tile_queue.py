"""Tiles of planes that are in flight at once share batches: fewer calls, equal labels, nothing lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.engine import simulated_device
from segmentd.engine.device import Batch, DeviceOutOfMemoryError, DeviceTile
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.segmenter import BandResult
from segmentd.engine.simulated_device import SimulatedDevice
from segmentd.engine.source import ArraySource
from segmentd.engine.tile_orders import Order
from segmentd.records import SegmentOptions

from .. import tiny_model

EDGE = 48
FRAMES = 40
SECONDS = 5.0
FAULTS = ("oom_above:3", "oom_always", "lost_after:4", "nan_after:3", "memory:1", "slow:0.001")


def frame(number: int, edge: int = EDGE) -> np.ndarray:
    """A small image; no two have the same grey levels."""
    return np.random.default_rng(number).integers(0, 60 + 4 * number, (1, edge, edge), np.uint8)


class GatedDevice(SimulatedDevice):
    """A simulated device that shows what it is given, and waits to be told before each batch."""

    def __init__(self, fault: str) -> None:
        super().__init__(simulated_device.parse(fault), lambda seconds: None)
        self.batches: list[Sequence[int]] = []
        self.before: Callable[[Batch], None] = lambda batch: None

    def run(self, batch: Batch) -> list[DeviceTile]:
        self.batches.append([len(np.unique(tile.pixels)) for tile in batch.tiles])
        self.before(batch)
        return super().run(batch)


class Crowd:
    """A lane, models, and what the CPU makes of frames."""

    def __init__(self, cpu: CpuLane, paths: list[Path], fault: str) -> None:
        self.now = 0.0
        self.device = GatedDevice(fault)
        self.cpu, self.paths = cpu, paths
        self.lane = DeviceLane(self.device, cpu, clock=lambda: self.now)
        for path in paths:
            self.lane.load(path)
        self._asked: list[int] = []
        orders = self.lane._queue._orders
        self._add = orders.add
        orders.add = self._count  # type: ignore[method-assign]

    def segment(self, number: int, path: Path | None = None) -> BandResult:
        pixels = frame(number)
        strips = self.lane.segment(path or self.paths[0], ArraySource(pixels), SegmentOptions())
        return whole_plane(pixels, strips)

    def check(self, number: int, found: BandResult, path: Path | None = None) -> None:
        expected = self.cpu.segment_array(path or self.paths[0], frame(number), SegmentOptions())
        assert_array_equal(found.labels, expected.labels)
        assert_array_equal(found.confidence, expected.confidence)
        assert (found.device == "simulated:0") == (found.device_reason == "")

    def asked(self) -> int:
        """Tiles that the device was asked for so far."""
        return sum(self._asked)

    def _count(self, order: Order) -> None:
        self._asked.append(len(order.tiles))
        self._add(order)


def until(condition: Callable[[], object]) -> None:
    """Wait for something that other threads do."""
    waited = threading.Event()
    for _ in range(int(SECONDS / 0.001)):
        if condition():
            return
        waited.wait(0.001)
    raise AssertionError("it never came to that")


def first_alone(made: Crowd, frames: int) -> list[Future[BandResult]]:
    """Segment frames, the others of which begin when the first one is on the device."""
    with ThreadPoolExecutor(frames) as planes:
        first = planes.submit(made.segment, 0)
        until(lambda: len(made.device.batches) == 1)
        return [first, *(planes.submit(made.segment, number) for number in range(1, frames))]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    names = "first", "second"
    return [tiny_model.save(folder / f"{name}.segmodel", name, seed=i) for i, name in enumerate(names)]


@pytest.fixture
def crowd(cpu: CpuLane, paths: list[Path]) -> Iterator[Callable[[str], Crowd]]:
    made: list[Crowd] = []

    def make(fault: str = "slow:0") -> Crowd:
        made.append(Crowd(cpu, paths, fault))
        return made[-1]

    yield make
    for each in made:
        each.lane.give_back()


def test_frames_that_come_while_the_device_works_share_the_next_batch(crowd: Callable[..., Crowd]) -> None:
    made = crowd()
    everybody = FRAMES + 1
    # The first frame is on the device until all others wait.
    made.device.before = lambda batch: until(lambda: made.asked() == everybody)
    for number, done in enumerate(first_alone(made, everybody)):
        made.check(number, done.result())
    assert [len(batch) for batch in made.device.batches] == [1, 8, 8, 8, 8, 8]
    counts = made.lane.devices()[0].counts
    assert counts is not None
    assert (counts.batches, counts.tiles, counts.planes) == (6, everybody, everybody)


def test_few_in_flight_still_need_few_calls(crowd: Callable[..., Crowd]) -> None:
    """As many as the scheduler lets in; a frame that is done makes room for the next one."""
    made, in_flight = crowd(), 8
    done_before = [0]

    def others_wait(batch: Batch) -> None:
        until(lambda: made.asked() == min(done_before[0] + in_flight, FRAMES))
        done_before[0] += len(batch.tiles)

    made.device.before = others_wait
    with ThreadPoolExecutor(in_flight) as planes:
        done = list(planes.map(made.segment, range(FRAMES)))
    for number, found in enumerate(done):
        made.check(number, found)
    assert len(made.device.batches) <= 2 * FRAMES / in_flight + 2


def test_nobody_waits_for_partners(crowd: Callable[..., Crowd]) -> None:
    made = crowd()
    for number in range(3):
        made.check(number, made.segment(number))
    assert [len(batch) for batch in made.device.batches] == [1, 1, 1]


def test_batches_hold_one_model_and_the_oldest_goes_first(
    crowd: Callable[..., Crowd], paths: list[Path]
) -> None:
    made = crowd()
    models: list[str] = []

    def note(batch: Batch) -> None:
        models.append(batch.model.card.id)
        if len(models) == 1:
            until(lambda: made.asked() == 6)

    made.device.before = note
    with ThreadPoolExecutor(6) as planes:
        asked = []
        for number in range(6):
            asked.append(planes.submit(made.segment, number, paths[number % 2]))
            until(lambda: models and made.asked() > number)  # noqa: B023 (called at once)
    for number, done in enumerate(asked):
        made.check(number, done.result(), paths[number % 2])
    assert models == ["first", "second", "first"]
    assert [len(batch) for batch in made.device.batches] == [1, 3, 2]


@pytest.mark.parametrize("fault", FAULTS)
def test_forty_frames_of_several_folders_through_each_fault(
    crowd: Callable[..., Crowd], paths: list[Path], fault: str
) -> None:
    made = crowd(fault)

    def one(number: int) -> BandResult:
        made.now += 0.2  # the device comes back now and then
        return made.segment(number, paths[number % 3 % 2])

    with ThreadPoolExecutor(8) as planes:
        done = list(planes.map(one, range(FRAMES)))
    for number, found in enumerate(done):
        made.check(number, found, paths[number % 3 % 2])
    used = {found.device for found in done}
    if fault in ("oom_above:3", "slow:0.001"):
        assert used == {"simulated:0"}
    if fault in ("oom_always", "memory:1"):
        assert used == {"cpu"}
    if fault.startswith("oom_above"):
        assert max(map(len, made.device.batches[-3:])) <= 3


def held(made: Crowd, wanted: int) -> Callable[[Batch], None]:
    """The first batch is on the device until so many tiles were asked for."""

    def wait(batch: Batch) -> None:
        if len(made.device.batches) == 1:
            until(lambda: made.asked() == wanted)

    return wait


def test_a_batch_that_fails_goes_back_to_all_its_planes(crowd: Callable[..., Crowd]) -> None:
    made = crowd()
    gate = held(made, 7)

    def fails_once(batch: Batch) -> None:
        gate(batch)
        if len(made.device.batches) == 2:
            raise DeviceOutOfMemoryError(len(batch.tiles))

    made.device.before = fails_once
    for number, done in enumerate(first_alone(made, 7)):
        found = done.result()
        made.check(number, found)
        assert found.device == "simulated:0"
    assert [len(batch) for batch in made.device.batches] == [1, 6, 3, 3]


def test_what_one_plane_does_to_a_batch_harms_no_other(crowd: Callable[..., Crowd]) -> None:
    made = crowd()
    gate = held(made, 6)
    poison = len(np.unique(frame(3)))

    def chokes(batch: Batch) -> None:
        gate(batch)
        if any(len(np.unique(tile.pixels)) == poison for tile in batch.tiles):
            raise ValueError("nobody expected that")

    made.device.before = chokes
    for number, done in enumerate(first_alone(made, 6)):
        if number == 3:
            with pytest.raises(ValueError, match="nobody expected that"):
                done.result()
        else:
            made.check(number, done.result())


def test_a_plane_that_is_given_up_takes_nothing_with_it(
    crowd: Callable[..., Crowd], paths: list[Path]
) -> None:
    made = crowd()
    large = frame(45, 200)  # 49 tiles
    given_up = threading.Event()

    def on_tile(tile: object) -> None:
        given_up.wait(SECONDS)
        raise KeyboardInterrupt

    strips = made.lane.segment(paths[0], ArraySource(large), SegmentOptions(tile_px=32), on_tile=on_tile)

    def leave() -> None:
        with pytest.raises(KeyboardInterrupt):
            next(strips)

    with ThreadPoolExecutor(4) as planes:
        leaving = planes.submit(leave)
        until(lambda: len(made.device.batches) >= 1)
        made.device.before = lambda batch: until(lambda: given_up.is_set() and leaving.done())
        others = [planes.submit(made.segment, number) for number in range(3)]
        until(lambda: made.asked() == 2 * 8 + 3)  # two orders of the large plane
        given_up.set()
    leaving.result()
    for number, done in enumerate(others):
        made.check(number, done.result())
    memory = made.lane._turns._memory._residency
    assert not any(model.leases for model in memory._resident.values())
    gone: list[str] = []
    made.device.unload = lambda model: gone.append(model.card.id)  # type: ignore[method-assign]
    made.lane.tidy()
    made.lane._turns.keep_only([])
    assert sorted(gone) == ["first", "second"]


def test_closing_ends_what_waits(crowd: Callable[..., Crowd]) -> None:
    made = crowd()
    closing = threading.Event()
    made.device.before = lambda batch: until(lambda: closing.is_set() and made.lane._queue._closed)
    with ThreadPoolExecutor(3) as planes:
        first = planes.submit(made.segment, 0)
        until(lambda: len(made.device.batches) == 1)
        second = planes.submit(made.segment, 1)
        until(lambda: made.asked() == 2)
        third = planes.submit(made.lane.give_back)
        closing.set()
    third.result()
    made.check(0, first.result())
    found = second.result()
    assert (found.device, found.device_reason) == (
        "cpu",
        "simulated:0 is being given back; computed on the CPU",
    )
    made.check(1, replace(found))
