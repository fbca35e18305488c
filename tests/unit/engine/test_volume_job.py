"""Networks for volumes: each plane of a stack gets its labels, and each layer of tiles is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from onnx import helper

from segmentd.engine.lane import CpuLane
from segmentd.engine.source import ArraySource, Stack, StackPlane
from segmentd.ingest.readers import open_image
from segmentd.models.registry import Lease
from segmentd.records import SegmentOptions
from segmentd.segmentation import Target, segment_image
from segmentd.workers import WorkerPool

from .. import tiny_networks as tiny

DEPTH, BORDER = 5, 1
VOLUME = np.random.default_rng(7).integers(0, 256, (12, 50, 41)).astype(np.uint8)


def network(channels_first: bool) -> bytes:
    """Label 2 where the mean of three planes exceeds a half; beyond a tile the planes are repeated."""
    nodes = [
        helper.make_node("Pad", ["p", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "mean"], ["smooth"]),
        helper.make_node("Conv", ["smooth", "slope", "offset"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["s"], axis=1),
    ]
    if channels_first:
        nodes.insert(0, helper.make_node("Identity", ["x"], ["p"]))
        nodes.append(helper.make_node("Identity", ["s"], ["y"]))
    else:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["p"], perm=[0, 4, 1, 2, 3]))
        nodes.append(helper.make_node("Transpose", ["s"], ["y"], perm=[0, 2, 3, 4, 1]))
    constants = {
        "mean": np.full((1, 1, 3, 1, 1), 1 / 3, np.float32),
        "slope": np.array([0.0, 40.0], np.float32).reshape(2, 1, 1, 1, 1),
        "offset": np.array([0.0, -20.0], np.float32),
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1, 0, 0], np.int64),
    }
    taken, made = ([1, 1, DEPTH, 32, 32], [1, 2, DEPTH, 32, 32])
    if not channels_first:
        taken, made = ([*shape[:1], *shape[2:], shape[1]] for shape in (taken, made))
    return tiny.serialize(nodes, taken, made, constants)


def package(folder: Path) -> Path:
    path = folder / "v.czann"
    changes = {
        "InputShape": [DEPTH, 32, 32, 1],
        "OutputShape": [DEPTH, 32, 32, 2],
        "MinOverlap": [2 * BORDER, 8, 8],
        "Classes": ["a", "b"],
    }
    path.write_bytes(tiny.czann(network(channels_first=False), **changes))
    return path


def expected(volume: np.ndarray) -> np.ndarray:
    padded = np.pad(volume / 255.0, ((1, 1), (0, 0), (0, 0)), mode="edge")
    return 1 + (padded[:-2] + padded[1:-1] + padded[2:] > 1.5)


@pytest.fixture(scope="module")
def lane() -> Iterator[CpuLane]:
    lane = CpuLane(2)
    yield lane
    lane.close()


@pytest.mark.parametrize("depth", [1, 3, 5, 12])
def test_every_plane_gets_its_labels(lane: CpuLane, tmp_path: Path, depth: int) -> None:
    path = package(tmp_path)
    assert lane.load(path).volume
    read: list[int] = []

    def source(z: int) -> ArraySource:
        read.append(z)
        return ArraySource(VOLUME[z][None])

    stack = Stack(depth, source)
    for z in range(depth):
        strips = lane.segment(path, StackPlane(stack, z), SegmentOptions())
        labels = np.concatenate([strip.labels for strip in strips])
        np.testing.assert_array_equal(labels, expected(VOLUME[:depth])[z])
    assert sorted(read) == list(range(depth)), "each plane is read once"
    assert not stack.results


def test_a_plane_by_itself_is_a_stack_of_one(lane: CpuLane, tmp_path: Path) -> None:
    path = package(tmp_path)
    lane.load(path)
    labels = lane.segment_array(path, VOLUME[:1], SegmentOptions()).labels
    np.testing.assert_array_equal(labels, 1 + (VOLUME[0] / 255.0 > 0.5))


def test_channels_first_and_a_bare_file(lane: CpuLane, tmp_path: Path) -> None:
    (tmp_path / "v.onnx").write_bytes(network(channels_first=True))
    (tmp_path / "v.json").write_text('{"Layout": "NCHW", "Classes": ["a", "b"], "BorderSize": 2}')
    lane.load(tmp_path / "v.onnx")
    labels = lane.segment_array(tmp_path / "v.onnx", VOLUME[:1], SegmentOptions()).labels
    np.testing.assert_array_equal(labels, 1 + (VOLUME[0] / 255.0 > 0.5))


def test_a_file_with_several_stacks(lane: CpuLane, tmp_path: Path) -> None:
    path = package(tmp_path)
    lease = Lease(path, lane.load(path))
    stacks = np.stack([VOLUME[:7], VOLUME[5:]])
    tifffile.imwrite(tmp_path / "i.ome.tif", stacks[:, :, None], ome=True, metadata={"axes": "TZCYX"})
    with WorkerPool(1) as pool, open_image(pool, tmp_path / "i.ome.tif") as image:
        target = Target(tmp_path / "out", b"i.ome.tif", ("labels",))
        records = segment_image(image, lease, lane, SegmentOptions(), target)
    labels = tifffile.imread(records[0].files["labels"])
    np.testing.assert_array_equal(labels.reshape(stacks.shape), np.stack([expected(one) for one in stacks]))
