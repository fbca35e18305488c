"""The whole lane for a card, with numpy's arrays: labels are the CPU's, and every failure is understood."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.engine import cuda_check
from segmentd.engine.cuda_device import STREAMS, WORKING_BYTES, CudaDevice
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.device_turns import MemoryRules
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.segmenter import BandResult
from segmentd.engine.source import ArraySource
from segmentd.records import SegmentOptions

from .. import tiny_model
from ..compute.host_kernels import COMPILER, HostKernels
from . import numpy_twin
from .numpy_twin import Twin

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
PLANE = np.random.default_rng(3).integers(0, 255, (1, 150, 170), np.uint8)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    return HostKernels(tmp_path_factory.mktemp("kernels"))


class Bench:
    def __init__(self, kernels: HostKernels, cpu: CpuLane, path: Path) -> None:
        self.now = 0.0
        self.cpu, self.path = cpu, path
        self.twin = Twin(kernels)
        self.device = CudaDevice(self.twin, 1, "a card")  # type: ignore[arg-type]
        self.lane = DeviceLane(self.device, cpu, clock=lambda: self.now, rules=MemoryRules("50%"))
        self.lane.load(path)

    def segment(self, options: SegmentOptions) -> BandResult:
        done = whole_plane(PLANE, self.lane.segment(self.path, ArraySource(PLANE), options))
        expected = self.cpu.segment_array(self.path, PLANE, options)
        assert_array_equal(done.labels, expected.labels)
        assert_array_equal(done.confidence, expected.confidence)
        return done


@pytest.fixture
def bench(kernels: HostKernels, cpu: CpuLane, tmp_path: Path) -> Bench:
    return Bench(kernels, cpu, tiny_model.save(tmp_path / "cells.segmodel"))


@pytest.mark.parametrize(
    "options",
    [
        SegmentOptions(),
        SegmentOptions(tile_px=40),
        SegmentOptions(tile_px=64, border_px=3, min_confidence=70),
    ],
)
def test_labels_are_those_of_the_cpu(bench: Bench, options: SegmentOptions) -> None:
    done = bench.segment(options)
    assert (done.device, done.device_reason) == ("cuda:1", "")
    assert set(bench.twin.opened) == {1}


def test_probabilities_are_those_of_the_cpu(bench: Bench) -> None:
    source, options = ArraySource(PLANE), SegmentOptions(tile_px=64, border_px=3)
    expected = {part.region: part.scores for part in bench.cpu.scores(bench.path, source, options)}
    found = list(bench.lane.scores(bench.path, source, options))
    assert len(found) == len(expected)
    for part in found:
        assert_array_equal(part.scores, expected[part.region])


def test_tiles_take_turns_on_two_streams(bench: Bench) -> None:
    bench.segment(SegmentOptions(tile_px=40))
    assert [stream.waits for stream in bench.twin.streams] == [10, 10]  # 20 tiles in two batches
    assert len(bench.twin.streams) == STREAMS


def test_the_budget_is_a_share_of_what_tiles_leave(bench: Bench) -> None:
    memory = bench.lane.devices()[0].memory
    assert memory is not None
    assert memory.budget_bytes == ((4 << 30) - WORKING_BYTES) // 2
    assert memory.models == ("cells",)


def test_out_of_memory_makes_batches_smaller(bench: Bench) -> None:
    bench.twin.fault = numpy_twin.OutOfMemoryError("out of memory")
    assert bench.segment(SegmentOptions(tile_px=40)).device == "cuda:1"
    assert len(bench.twin.streams) == STREAMS


@pytest.mark.parametrize("kind", [numpy_twin.CUDARuntimeError, numpy_twin.CompileError])
def test_a_lost_card_comes_back(bench: Bench, kind: type[Exception]) -> None:
    bench.twin.fault = kind("cudaErrorIllegalAddress")
    done = bench.segment(SegmentOptions(tile_px=40))
    assert done.device == "cpu"
    assert "was lost (cudaErrorIllegalAddress)" in done.device_reason
    bench.now = 1.0
    assert bench.segment(SegmentOptions()).device == "cuda:1"
    bench.lane.unload(bench.path)
    bench.cpu.load(bench.path)


def test_pixels_that_are_no_numbers_get_no_label(bench: Bench, kernels: HostKernels) -> None:
    broken = numpy_twin.TwinArray.get

    def not_a_number(array, stream, out, blocking) -> None:
        broken(array, stream, out, blocking)
        stream.queue.append(lambda: out.fill(255))

    numpy_twin.TwinArray.get = not_a_number  # type: ignore[method-assign]
    try:
        done = bench.segment(SegmentOptions())
    finally:
        numpy_twin.TwinArray.get = broken  # type: ignore[method-assign]
    assert "values that are not numbers" in done.device_reason


def test_memory_is_looked_at_on_a_card_that_is_gone(bench: Bench) -> None:
    def gone() -> tuple[int, int]:
        raise numpy_twin.CUDARuntimeError("cudaErrorDevicesUnavailable")

    bench.twin.cuda.runtime.memGetInfo = gone
    bench.lane.tidy()
    assert "cudaErrorDevicesUnavailable" in bench.lane.devices()[1].reason


def test_cards_are_tried_before_they_are_used(
    kernels: HostKernels, capsys: pytest.CaptureFixture[str]
) -> None:
    cuda_check.tell(Twin(kernels))  # type: ignore[arg-type]
    sound = json.loads(capsys.readouterr().out)
    assert [(card["name"], card["fault"]) for card in sound] == [("twin 0", ""), ("twin 1", "")]
    assert sound[0]["memory_bytes_per_s"] == 272e9


def test_a_card_with_wrong_labels_is_found_out(kernels: HostKernels) -> None:
    twin = Twin(kernels)
    right = numpy_twin.TwinArray.get

    def wrong(array, stream, out, blocking) -> None:
        right(array, stream, out, blocking)
        stream.queue.append(lambda: out.fill(1))

    numpy_twin.TwinArray.get = wrong  # type: ignore[method-assign]
    try:
        fault = cuda_check.fault_of(CudaDevice(twin, 0, "a card"))  # type: ignore[arg-type]
    finally:
        numpy_twin.TwinArray.get = right  # type: ignore[method-assign]
    assert "labels were wrong" in fault
    twin.fault = numpy_twin.CUDARuntimeError("cudaErrorNoKernelImageForDevice")
    fault = cuda_check.fault_of(CudaDevice(twin, 0, "a card"))  # type: ignore[arg-type]
    assert fault == "its test failed: cuda:0 was lost (cudaErrorNoKernelImageForDevice)"
