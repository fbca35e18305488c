"""Imported networks in the lane: the labels are those of the formula, however a plane is tiled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segmentd.engine.lane import CpuLane
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.models import files
from segmentd.models.fit import used_channels
from segmentd.records import PixelType, SegmentOptions

from .. import tiny_networks as tiny

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def lane() -> Iterator[CpuLane]:
    lane = CpuLane(2)
    yield lane
    lane.close()


@pytest.fixture(scope="module")
def levels(lane: CpuLane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "levels.czann"
    path.write_bytes(tiny.czann())
    lane.load(path)
    return path


def waves(height: int, width: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """A plane on which all three labels occur."""
    y, x = np.ogrid[:height, :width]
    values = 0.5 + 0.5 * np.sin(y / 9.0) * np.cos(x / 13.0) + RNG.normal(0, 0.02, (height, width))
    values = values.clip(0, 1)
    return values.astype(dtype) if dtype is np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


def top(pixels: npt.NDArray[Any]) -> float:
    return 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (20, 300), (32, 48), (33, 49), (700, 130)])
def test_labels_are_those_of_the_formula(
    lane: CpuLane, levels: Path, shape: tuple[int, int], dtype: Any
) -> None:
    pixels = waves(*shape, dtype)
    for options in (SegmentOptions(), SegmentOptions(border_px=1), SegmentOptions(border_px=15)):
        result = lane.segment_array(levels, pixels[None], options)
        np.testing.assert_array_equal(result.labels, tiny.expected(pixels, top(pixels)))
        assert result.confidence.min() >= 50


def test_confidence_is_the_highest_probability(lane: CpuLane, levels: Path) -> None:
    pixels = waves(60, 90)
    result = lane.segment_array(levels, pixels[None], SegmentOptions())
    s = tiny.smooth(pixels, 255)
    logits = tiny.STEEPNESS * np.stack([0 * s, s - 0.35, 2 * s - 1.0])
    shares = np.exp(logits - logits.max(axis=0))
    best = 100 * shares.max(axis=0) / shares.sum(axis=0)
    assert np.abs(result.confidence - best).max() < 0.51
    sure = lane.segment_array(levels, pixels[None], SegmentOptions(min_confidence=90))
    np.testing.assert_array_equal(sure.labels, np.where(result.confidence >= 90, result.labels, 0))
    np.testing.assert_array_equal(sure.confidence, result.confidence)


def test_strips_end_where_results_can_be_written(lane: CpuLane, levels: Path) -> None:
    pixels = waves(1000, 60)
    strips = list(lane.segment(levels, ArraySource(pixels[None]), SegmentOptions()))
    ends = np.cumsum([len(strip.labels) for strip in strips])
    assert ends[-1] == 1000
    assert not (ends[:-1] % 256).any()
    assert [strip.first_row for strip in strips] == [0, *ends[:-1]]
    np.testing.assert_array_equal(np.concatenate([strip.pixels[0] for strip in strips]), pixels)
    np.testing.assert_array_equal(
        np.concatenate([strip.labels for strip in strips]), tiny.expected(pixels, 255)
    )


def test_pixels_that_are_no_numbers_get_no_label(lane: CpuLane, levels: Path) -> None:
    pixels = waves(300, 60, np.float32)
    pixels[270, 3:9] = np.nan
    result = lane.segment_array(levels, pixels[None], SegmentOptions())
    assert result.masked_pixels == 6
    assert not result.labels[270, 3:9].any() and not result.confidence[270, 3:9].any()
    assert result.labels[269].all()


def test_tiles_come_once_each(lane: CpuLane, levels: Path) -> None:
    seen = np.zeros((100, 200), int)

    def count(tile: Any) -> None:
        region = tile.region
        seen[region.y : region.y + region.height, region.x : region.x + region.width] += 1

    for _ in lane.segment(levels, ArraySource(waves(100, 200)[None]), SegmentOptions(), on_tile=count):
        pass
    assert (seen == 1).all()


def load(lane: CpuLane, folder: Path, data: bytes, name: str = "n.czann") -> Path:
    (folder / name).write_bytes(data)
    lane.load(folder / name)
    return folder / name


@pytest.mark.parametrize(
    "network",
    [
        tiny.classifier(batch=1),
        tiny.classifier(shape=("h", "w"), batch=1),
        tiny.classifier(shape=("h", "w")),
    ],
    ids=["one tile at once", "free size", "all free"],
)
def test_networks_of_fixed_and_free_axes(lane: CpuLane, tmp_path: Path, network: bytes) -> None:
    path = load(lane, tmp_path, tiny.czann(network))
    pixels = waves(150, 170)
    for options in (SegmentOptions(), SegmentOptions(tile_px=64), SegmentOptions(tile_px=16, border_px=2)):
        labels = lane.segment_array(path, pixels[None], options).labels
        np.testing.assert_array_equal(labels, tiny.expected(pixels, 255))


def test_raw_grey_values_where_scaling_is_off(lane: CpuLane, tmp_path: Path) -> None:
    network = tiny.classifier(levels=(100.03, 150.03))
    path = load(lane, tmp_path, tiny.czseg(network, ScaleInputsByBitdepth="false"), "n.czseg")
    pixels = waves(60, 70)
    labels = lane.segment_array(path, pixels[None], SegmentOptions()).labels
    np.testing.assert_array_equal(labels, tiny.expected(pixels, 1, (100.03, 150.03)))


def test_a_bare_network_with_channels_first_and_logits(lane: CpuLane, tmp_path: Path) -> None:
    sidecar = {"Classes": ["a", "b", "c"], "Layout": "NCHW", "Activation": "softmax", "BorderSize": 3}
    (tmp_path / "n.json").write_text(json.dumps(sidecar))
    path = load(lane, tmp_path, tiny.classifier(channels_first=True, softmax=False), "n.onnx")
    twin = load(lane, tmp_path, tiny.czann())
    pixels = waves(60, 70)
    result, other = (lane.segment_array(each, pixels[None], SegmentOptions()) for each in (path, twin))
    np.testing.assert_array_equal(result.labels, tiny.expected(pixels, 255))
    assert np.abs(result.confidence.astype(int) - other.confidence).max() <= 1


def test_colour_networks_get_blue_first(lane: CpuLane, tmp_path: Path) -> None:
    network = tiny.classifier(weights=(1.0, 0.0, 0.0), levels=(0.5,))
    changes = {"InputShape": [32, 48, 3], "OutputShape": [32, 48, 2], "Classes": ["other", "blue"]}
    path = load(lane, tmp_path, tiny.czann(network, **changes))
    card = files.load(path).card
    colours = np.stack([waves(50, 60) for _ in range(3)])
    for rgb, blue in ((True, 2), (False, 0)):
        channels = used_channels(card, PixelType.UINT8, ("r", "g", "b"), "image", rgb)
        strips = lane.segment(path, ArraySource(colours), SegmentOptions(), channels)
        labels = np.concatenate([strip.labels for strip in strips])
        np.testing.assert_array_equal(labels, tiny.expected(colours[blue], 255, (0.5,)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_regression_gives_an_image_like_the_one_that_went_in(
    lane: CpuLane, tmp_path: Path, dtype: Any
) -> None:
    changes = {"InputShape": [32, 32, 1], "OutputShape": [32, 32, 1], "Type": "Regression", "Classes": None}
    path = load(lane, tmp_path, tiny.czann(tiny.half(), **changes))
    pixels = waves(300, 45, dtype)
    strips = list(lane.segment(path, ArraySource(pixels[None]), SegmentOptions()))
    image = np.concatenate([strip.image for strip in strips if strip.image is not None], axis=1)[0]
    assert image.dtype == dtype
    wanted = 0.5 * pixels + 0.1 * top(pixels)
    np.testing.assert_allclose(image, wanted, atol=1e-6 if dtype is np.float32 else 0.51)
    assert not any(strip.labels.any() or strip.confidence.any() for strip in strips)


def test_a_border_that_leaves_nothing_is_refused(lane: CpuLane, levels: Path) -> None:
    with pytest.raises(SegmentdError, match="use less than 16") as error:
        lane.segment_array(levels, waves(9, 9)[None], SegmentOptions(border_px=16))
    assert error.value.reason is Reason.BAD_FIELD


def test_images_that_do_not_fit_are_refused(levels: Path, tmp_path: Path) -> None:
    card = files.load(levels).card
    with pytest.raises(SegmentdError, match="takes uint8 or uint16 or float32"):
        used_channels(card, PixelType.INT16, ("a",), "image")
    with pytest.raises(SegmentdError, match="has 2 channel"):
        used_channels(card, PixelType.UINT8, ("a", "b"), "image")
