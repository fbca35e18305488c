"""Networks, deep features and the field in a device's own process: it aborts and hangs, no frame is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.compute.deep_sets import deep_sets
from segmentd.engine.device_lane import FOREST_ON_CPU, DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.segmenter import BandResult
from segmentd.engine.source import ArraySource
from segmentd.models import bundle, deep_features, training
from segmentd.records import SegmentOptions

from .. import tiny_networks as tiny
from .. import vgg19_files
from ..tiny_model import model as tiny_model
from ..tiny_model import save as tiny_forest
from .test_device_process import simulated

ROW = np.arange(70)[:, None] / 11
PLANE = (127 * (1 + np.sin(ROW) * np.cos(np.arange(130) / 13)))[None].astype(np.uint8)  # 3 rows of 4 tiles


@pytest.fixture(scope="module")
def cpu() -> Iterator[CpuLane]:
    lane = CpuLane(2, for_devices=True)
    yield lane
    lane.close()


@pytest.fixture(scope="module")
def levels(cpu: CpuLane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "levels.czann"
    path.write_bytes(tiny.czann())
    cpu.load(path)
    return path


class Bench:
    """A lane with a device process, a clock that is set by hand, and the CPU's own result."""

    def __init__(
        self, fault: str, cpu: CpuLane, model: Path, options: SegmentOptions, plane: np.ndarray = PLANE
    ) -> None:
        self.now = 0.0
        self.lane = DeviceLane(simulated(fault), cpu, clock=lambda: self.now)
        self.lane.bring(model)
        self.model, self.options, self.plane = model, options, plane
        self.expected = cpu.segment_array(model, plane, options)

    def segment(self) -> BandResult:
        source = ArraySource(self.plane)
        done = whole_plane(self.plane, self.lane.segment(self.model, source, self.options))
        assert_array_equal(done.labels, self.expected.labels)
        assert_array_equal(done.confidence, self.expected.confidence)
        return done


@pytest.fixture
def benches() -> Iterator[list[Bench]]:
    made: list[Bench] = []
    yield made
    for one in made:
        one.lane.give_back()


def test_networks_and_the_field_in_another_process(cpu: CpuLane, levels: Path, benches: list[Bench]) -> None:
    made = Bench("oom_above:3", cpu, levels, SegmentOptions(postprocessing="crf", confidence="marginal"))
    benches.append(made)
    assert made.lane.device_of(levels) == "simulated:0"
    done = made.segment()
    assert (done.device, done.device_reason) == ("simulated:0", "")
    forest = tiny_forest(levels.with_name("cells.segmodel"))
    cpu.load(forest)
    made.lane.bring(forest)
    found = list(made.lane.scores(forest, ArraySource(PLANE), SegmentOptions()))
    expected = list(cpu.scores(forest, ArraySource(PLANE), SegmentOptions()))
    assert_array_equal(found[0].scores, expected[0].scores)
    assert made.lane.device_of(forest) == "simulated:0"


@pytest.mark.slow
def test_a_field_whose_process_aborts(cpu: CpuLane, levels: Path, benches: list[Bench]) -> None:
    made = Bench("abort_after:17", cpu, levels, SegmentOptions(postprocessing="crf"))
    benches.append(made)
    assert made.segment().device == "simulated:0"  # the trial, twelve tiles, the field's trial and a window
    done = made.segment()
    assert done.device == "simulated:0+cpu" and "signal SIGABRT" in done.device_reason
    made.now = 1.0
    assert made.segment().device == "simulated:0"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["abort_after:41", "hang_after:61", "lost_after:41", "nan_after:41"])
def test_forty_frames_through_each_fault(
    cpu: CpuLane, levels: Path, benches: list[Bench], fault: str
) -> None:
    """Three batches a frame, so that every 13th frame or so meets the fault."""
    made = Bench(fault, cpu, levels, SegmentOptions())
    benches.append(made)
    devices = []
    for frame in range(40):
        done = made.segment()
        assert (done.device == "simulated:0") == (done.device_reason == ""), frame
        devices.append(done.device)
        made.now += 1.0
    assert set(devices) - {"simulated:0"}
    assert devices.count("simulated:0") >= 26
    assert devices[-1] == "simulated:0" or devices[-2] == "simulated:0"


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "device"), [("oom_above:2", "simulated:0"), ("oom_always", "cpu")])
def test_forty_frames_with_little_memory(
    cpu: CpuLane, levels: Path, benches: list[Bench], fault: str, device: str
) -> None:
    made = Bench(fault, cpu, levels, SegmentOptions())
    benches.append(made)
    for _ in range(40):
        assert made.segment().device == device
        made.now += 1.0


def deep_forest(folder: Path, weights: Path, plane: np.ndarray) -> Path:
    """A forest on deep features that tells bright from dark."""
    feature_set = next(one for one in deep_sets() if one.name == "deep50")
    features = deep_features.for_training(feature_set, weights, 1, 2)
    strokes = np.where(plane[0] > 170, 2, np.where(plane[0] < 90, 1, 0)).astype(np.uint8)
    names = [f"channel 1: {name}" for name in feature_set.feature_names]
    samples = training.collect(plane, strokes, feature_set, "none", features.extractor)
    forest = training.train(samples, 2, names).forest
    card = replace(
        tiny_model().card,
        feature_set=feature_set.name,
        border_px=feature_set.reach_px,
        weights_sha256=features.weights_sha256,
    )
    path = folder / "deep.segmodel"
    bundle.save(bundle.seal(card, forest, features.extractor.projection), path)
    return path


@pytest.mark.slow
def test_deep_features_through_a_device_that_is_lost(tmp_path: Path, benches: list[Bench]) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra 'deep'")
    weights = vgg19_files.write(tmp_path)["weights"]
    path = deep_forest(tmp_path, weights, PLANE)
    cpu = CpuLane(2, vgg19_weights=weights, for_devices=True)
    try:
        cpu.load(path)
        made = Bench("lost_after:4", cpu, path, SegmentOptions(tile_px=64))
        benches.append(made)
        assert np.unique(made.expected.labels).tolist() == [1, 2]
        done = made.segment()  # six tiles, after the trial
        lost = "simulated:0 was lost (as SEGMENTD_FAKE_DEVICE asks for); computed on the CPU"
        assert (done.device, done.device_reason) == ("simulated:0+cpu", lost)
        made.lane.give_back()
        whole = Bench("slow:0", cpu, path, SegmentOptions())
        benches.append(whole)
        done = whole.segment()
        assert (done.device, done.device_reason) == ("simulated:0+cpu", FOREST_ON_CPU)
    finally:
        cpu.close()
