"""A device in its own process: aborts, hangs and broken contexts end that process, never a frame."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.engine import simulated_device
from segmentd.engine.device import Batch, BatchTile, DeviceLostError
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.device_process import CHILD, Deadlines, DeviceProcess, Opener
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.loaded import LoadedForest
from segmentd.engine.segmenter import BandResult
from segmentd.engine.source import ArraySource
from segmentd.records import SegmentOptions

from .. import tiny_model
from ..compute.host_kernels import COMPILER, HostKernels

PLANE = np.random.default_rng(3).integers(0, 255, (1, 90, 130), np.uint8)
TILES = SegmentOptions(tile_px=32)  # 15 tiles: two batches of the simulated device, one of the twin
TWIN = "tests.unit.engine.twin_target:open_twin"
# A process that hangs is waited for so long: more than any batch takes on a busy machine.
DEADLINES = Deadlines(60.0, 5.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, cpu: CpuLane) -> Path:
    path = tiny_model.save(tmp_path_factory.mktemp("models") / "cells.segmodel")
    cpu.load(path)
    return path


@pytest.fixture(scope="module")
def expected(cpu: CpuLane, model: Path) -> BandResult:
    return cpu.segment_array(model, PLANE, TILES)


class Bench:
    """A lane with a device process, a clock that is set by hand, and the processes that it had."""

    def __init__(self, device: DeviceProcess, cpu: CpuLane, model: Path, expected: BandResult) -> None:
        self.now = 0.0
        self.device, self.model, self.expected = device, model, expected
        self.lane = DeviceLane(device, cpu, clock=lambda: self.now)
        self.lane.bring(model)

    def segment(self) -> BandResult:
        done = whole_plane(PLANE, self.lane.segment(self.model, ArraySource(PLANE), TILES))
        assert_array_equal(done.labels, self.expected.labels)
        assert_array_equal(done.confidence, self.expected.confidence)
        return done

    def frames(self, count: int) -> list[str]:
        """Segment frames, a second apart; returns their devices. All labels are the CPU's."""
        devices = []
        for _ in range(count):
            devices.append(self.segment().device)
            self.now += 1.0
        return devices


def simulated(fault: str) -> DeviceProcess:
    names = simulated_device.names(simulated_device.parse(fault), 0)
    opener = Opener(f"{CHILD}:open_simulated", {"number": 0, "fault": fault})
    return DeviceProcess(opener, *names, simulated_device.MAX_BATCH, DEADLINES)


@pytest.fixture
def bench(cpu: CpuLane, model: Path, expected: BandResult) -> Iterator[list[Bench]]:
    """Benches that are put in here are closed at the end."""
    made: list[Bench] = []
    yield made
    for one in made:
        one.lane.give_back()


def open_links() -> set[str]:
    """Sockets and memory without a name that are open."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # what listed the folder is closed by now
            found.add(str(path.readlink()))
    return {link for link in found if link.startswith(("socket:", "/memfd:segmentd"))}


def test_a_process_that_aborts_is_replaced_after_the_back_off(
    cpu: CpuLane, model: Path, expected: BandResult
) -> None:
    before = open_links()
    made = Bench(simulated("abort_after:3"), cpu, model, expected)
    assert made.segment().device == "simulated:0"
    done = made.segment()
    assert done.device == "simulated:0+cpu"
    assert done.device_reason == (
        "simulated:0 was lost (the worker process crashed (signal SIGABRT); another process takes its place "
        "later); computed on the CPU"
    )
    assert made.segment().device == "cpu"
    made.now = 1.0
    assert made.segment().device == "simulated:0"
    memory = made.lane.devices()[0].memory
    assert memory is not None and memory.models == ("cells",)
    made.lane.give_back()
    gc.collect()  # exceptions that point at each other
    assert open_links() <= before
    with pytest.raises(DeviceLostError, match="it is not open"):
        made.device.free_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    ["abort_after:31", "hang_after:61", "lost_after:31", "nan_after:31", "oom_above:4", "oom_always"],
)
def test_forty_frames_through_each_fault(
    bench: list[Bench], cpu: CpuLane, model: Path, expected: BandResult, fault: str
) -> None:
    made = Bench(simulated(fault), cpu, model, expected)
    bench.append(made)
    devices = made.frames(40)
    match fault.partition("_after")[0]:
        case "oom_above:4":
            assert set(devices) == {"simulated:0"}
        case "oom_always":
            assert set(devices) == {"cpu"}
        case _:
            assert set(devices) - {"simulated:0"}
            assert devices.count("simulated:0") >= 26


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("abort", marks=pytest.mark.slow),
        pytest.param("hang", marks=pytest.mark.slow),
        "cudaErrorIllegalAddress",
    ],
)
def test_the_code_for_cards_in_its_own_process(
    bench: list[Bench],
    cpu: CpuLane,
    model: Path,
    expected: BandResult,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    """With numpy behind CuPy's namespace; it fails in the middle of the second frame."""
    monkeypatch.syspath_prepend(str(repository))
    folder = tmp_path_factory.getbasetemp() / "twin-kernels"
    folder.mkdir(exist_ok=True)
    HostKernels(folder)
    opener = Opener(TWIN, {"folder": str(folder), "fault": fault, "after": 22})  # of 15 a frame
    device = DeviceProcess(opener, "cuda:0", "twin 0", 16, DEADLINES, ("segmentd", "tests"))
    made = Bench(device, cpu, model, expected)
    bench.append(made)
    assert made.frames(3) == ["cuda:0", "cpu", "cuda:0"]


def test_a_device_that_cannot_be_opened_is_lost(
    cpu: CpuLane, model: Path, expected: BandResult, bench: list[Bench]
) -> None:
    opener = Opener(f"{CHILD}:open_card", {"number": 0, "name": "none"})
    made = Bench(DeviceProcess(opener, "cuda:0", "none", 16), cpu, model, expected)
    bench.append(made)
    done = made.segment()
    assert done.device == "cpu"
    assert done.device_reason.startswith("cuda:0 was lost (")


def test_batches_that_are_laid_out_at_once_have_memory_of_their_own(model: Path, cpu: CpuLane) -> None:
    device = simulated("slow:0")
    loaded = cpu.model(model)
    assert isinstance(loaded, LoadedForest)
    edge = 8 + 2 * loaded.predictor.reach_px

    def batch(grey: int) -> Batch:
        pixels = np.full((1, edge, edge), grey, np.uint8)
        return Batch(loaded.predictor, [BatchTile(pixels, None, np.zeros(1, np.float32))] * 2)

    with device.prepared(batch(1)), device.prepared(batch(2)):
        assert device._areas == []
    assert len(device._areas) == 2
    with device.prepared(batch(3)):
        assert len(device._areas) == 1  # one of the two is used again
        with device.prepared(batch(4)), device.prepared(batch(5)):
            assert device._areas == []
    greys = sorted(int(area.bytes[0]) for area in device._areas)
    assert greys == [3, 4, 5]
    device.close()
    assert device._areas == []
