"""Fast features equal the plain formulas; their bits do not depend on the tile nor on other features."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from segmentd.compute import fast_features, normalize
from segmentd.compute.fast_features import (
    Scratch,
    aligned,
    compute,
    fill,
    grey_level,
    load,
    packet_grid,
    stack,
)
from segmentd.compute.feature_plan import FeaturePlan, plan_features
from segmentd.compute.features import FeatureSet, filter_sets
from segmentd.compute.normalize import Scale, to_float
from segmentd.compute.tiling import MIN_TILE_PX, cover, cut
from segmentd.records import Region

SETS = filter_sets()
PLANS = {name: plan_features(feature_set, 1) for name, feature_set in SETS.items()}


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise and waves between 0 and 1."""
    rng = np.random.default_rng(seed)
    waves = np.sin(np.arange(width) / 7) + np.cos(np.arange(height) / 19)[:, None]
    return np.clip(0.5 + 0.15 * waves + rng.normal(0, 0.08, (height, width)), 0, 1)


def in_float64(tile: np.ndarray, feature_set: FeatureSet) -> np.ndarray:
    """The plain formulas in double precision."""
    reach = feature_set.reach_px
    core = np.s_[reach:-reach, reach:-reach]
    return np.array([feature.apply(tile.astype(np.float64))[core] for feature in feature_set.features])


def unpacked(packets: np.ndarray, height: int, width: int) -> np.ndarray:
    """Packets (packets, planes, 64) as planes (planes, h, w)."""
    rows, columns = packet_grid(height, width)
    blocks = packets.reshape(rows, columns, -1, 8, 8).transpose(2, 0, 3, 1, 4)
    return blocks.reshape(-1, rows * 8, columns * 8)[:, :height, :width]


def by_tiles(
    plan: FeaturePlan,
    pixels: np.ndarray,
    tiles: list[Region],
    columns_each: int,
    scale: Scale | None = None,
    level: np.ndarray | None = None,
) -> np.ndarray:
    """All planes, from tiles that are computed a few columns at a time."""
    out = np.full((plan.plane_count, *pixels.shape[1:]), np.nan, np.float32)
    scratch = Scratch()
    for core in tiles:
        load(plan, pixels, core, plan.reach_px, scratch, scale=scale, level=level)
        rows, columns = scratch.grid
        for first in range(0, columns, columns_each):
            count = min(columns_each, columns - first)
            packets = aligned((rows * count, plan.plane_count, 64))
            compute(plan, scratch, first, packets)
            left = core.x + 8 * first
            width = min(8 * count, core.x + core.width - left)
            part = unpacked(packets, core.height, width)
            out[:, core.y : core.y + core.height, left : left + width] = part
    return out


def whole(plan: FeaturePlan, pixels: np.ndarray, scale: Scale | None, level: np.ndarray) -> np.ndarray:
    """The stack of a plane that is a single tile."""
    core = Region(0, 0, *pixels.shape[1:])
    tile = to_float(cut(pixels, core, plan.reach_px, plan.reach_px), scale)
    return stack(plan, tile, level)


def scales(pixels: np.ndarray) -> tuple[Scale, np.ndarray]:
    """A scale as `percentile` would find it, and the grey level after it."""
    low, high = np.percentile(pixels, (1, 99), axis=(1, 2))
    scale = Scale(low.astype(np.float32), np.maximum(high - low, 1e-6).astype(np.float32))
    return scale, grey_level(pixels[:, 0], scale)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("kind", "low", "span", "scaled"),
    [
        (np.uint8, 0, 255, False),
        (np.uint8, 150, 40, False),
        (np.uint16, 0, 65535, False),
        (np.uint16, 30000, 900, False),
        (np.uint16, 200, 4000, True),
        (np.float32, 5.0, 0.1, True),
    ],
)
def test_fast_features_equal_the_formulas(name, kind, low, span, scaled) -> None:
    pixels = (low + span * texture(75, 93))[None].astype(kind)
    scale = scales(pixels)[0] if scaled else None
    reach = SETS[name].reach_px
    tile = to_float(cut(pixels, Region(0, 0, 75, 93), reach, reach), scale)
    result = stack(PLANS[name], tile, grey_level(pixels[:, 0], scale))
    expected = in_float64(tile[0], SETS[name])
    assert result.dtype == np.float32
    assert result.shape == expected.shape
    worst = np.abs(result - expected).max(axis=(1, 2)) / np.ptp(expected, axis=(1, 2))
    assert worst.max() < 1e-5


@pytest.mark.parametrize("name", SETS)
def test_without_a_grey_level_too(name: str) -> None:
    reach = SETS[name].reach_px
    tile = to_float(cut(1000 * texture(50, 60)[None], Region(0, 0, 50, 60), reach, reach), None)
    expected = in_float64(tile[0], SETS[name])
    worst = np.abs(stack(PLANS[name], tile) - expected).max(axis=(1, 2)) / np.ptp(expected, axis=(1, 2))
    assert worst.max() < 1e-5


@pytest.mark.parametrize("name", SETS)
@settings(max_examples=40)
@given(data=st.data())
def test_bits_depend_on_neither_tiles_nor_other_features(name: str, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 110))
    kind = data.draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    span = data.draw(st.sampled_from([1, 40, 255]))
    pixels = (3 + span * texture(height, width, data.draw(st.integers(0, 9))))[None].astype(kind)
    scale, level = scales(pixels) if data.draw(st.booleans()) else (None, grey_level(pixels[:, 0], None))
    expected = whole(PLANS[name], pixels, scale, level)

    count = len(SETS[name])
    used = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    plan = plan_features(SETS[name], 1, used)
    tiles = list(cover(height, width, data.draw(st.integers(MIN_TILE_PX, 64))))
    planes = by_tiles(plan, pixels, tiles, data.draw(st.integers(1, 9)), scale, level)
    assert_array_equal(planes[plan.plane_of_feature[used]].view(np.uint32), expected[used].view(np.uint32))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3), (8, 8), (9, 17)])
def test_small_planes(name: str, shape: tuple[int, int]) -> None:
    pixels = (200 * texture(*shape))[None].astype(np.uint8)
    reach = SETS[name].reach_px
    tile = to_float(cut(pixels, Region(0, 0, *shape), reach, reach), None)
    result, expected = stack(PLANS[name], tile), in_float64(tile[0], SETS[name])
    assert np.abs(result - expected).max() < 1e-6 * 200


@pytest.mark.parametrize("name", SETS)
def test_packets_hold_the_stack(name: str) -> None:
    plan, reach = PLANS[name], SETS[name].reach_px
    tile = to_float(cut(texture(37, 51)[None], Region(0, 0, 37, 51), reach, reach), None)
    packets = aligned((5 * 7, plan.plane_count, 64))
    fill(plan, tile, packets, Scratch())
    assert_array_equal(unpacked(packets, 37, 51)[plan.plane_of_feature], stack(plan, tile))


def test_channels_follow_one_another() -> None:
    feature_set = SETS["basic25"]
    plan = plan_features(feature_set, 2)
    two = np.stack([texture(40, 50, 1), texture(40, 50, 2)]).astype(np.float32)
    level = np.array([0.5, 0.25], np.float32)
    planes = by_tiles(plan, two, list(cover(40, 50, 24)), 4, level=level)[plan.plane_of_feature]
    for channel in range(2):
        alone = whole(PLANS["basic25"], two[channel : channel + 1], None, level[channel : channel + 1])
        assert_array_equal(planes[25 * channel : 25 * channel + 25], alone)


@pytest.mark.parametrize("border", [0, 5, 33, 50])
def test_loading_is_cutting_and_scaling(border: int) -> None:
    plan, core = PLANS["basic25"], Region(16, 32, 30, 40)
    pixels = texture(60, 100)[None].astype(np.float32)
    pixels[0, 20, 40], pixels[0, 5, 50] = np.nan, np.inf
    scale = Scale(np.array([0.1], np.float32), np.array([0.7], np.float32))
    tile = to_float(cut(pixels, core, plan.reach_px, border), scale)
    scratch, packets, expected = Scratch(), aligned((20, 19, 64)), aligned((20, 19, 64))
    load(plan, pixels, core, border, scratch, scale=scale)
    compute(plan, scratch, 0, packets)
    fill(plan, tile, expected, Scratch())
    assert_array_equal(unpacked(packets, 30, 40), unpacked(expected, 30, 40))


def test_a_band_of_rows_will_do() -> None:
    plan, core = PLANS["basic25"], Region(64, 0, 16, 40)
    pixels = (255 * texture(160, 40)[None]).astype(np.uint8)
    results = []
    for band, first_row in ((pixels, 0), (pixels[:, 31:113], 31)):
        scratch, packets = Scratch(), aligned((10, 19, 64))
        load(plan, band, core, 33, scratch, first_row=first_row, plane_height=160)
        compute(plan, scratch, 0, packets)
        results.append(packets)
    assert_array_equal(*results)
    with pytest.raises(ValueError, match="needs rows"):
        load(plan, pixels[:, 40:113], core, 33, Scratch(), first_row=40, plane_height=160)


def test_nothing_is_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (255 * texture(45, 70)[None]).astype(np.uint8)
    tiles, plan = list(cover(45, 70, 32)), PLANS["basic25"]
    expected = by_tiles(plan, pixels, tiles, 3)

    def poisoned(shape: tuple[int, ...]) -> np.ndarray:
        memory = aligned(shape)
        memory.fill(np.nan)
        return memory

    monkeypatch.setattr(fast_features, "aligned", poisoned)
    assert_array_equal(by_tiles(plan, pixels, tiles, 3), expected)
    assert np.isfinite(expected).all()


def test_threads_do_not_disturb_one_another() -> None:
    pixels = (255 * texture(96, 128)[None]).astype(np.uint8)
    tiles, plan = list(cover(96, 128, 48)), PLANS["basic25"]
    expected = by_tiles(plan, pixels, tiles, 4)
    with ThreadPoolExecutor(2) as threads:
        for planes in threads.map(lambda _: by_tiles(plan, pixels, tiles, 4), range(4)):
            assert_array_equal(planes, expected)


def test_memory_is_reused_and_grows() -> None:
    plan, scratch = PLANS["basic25"], Scratch()
    scratch.arrange(plan, 64, 64)
    first = scratch.strips.ctypes.data
    assert first % 64 == 0
    scratch.arrange(plan, 40, 64)
    assert scratch.strips.ctypes.data == first
    scratch.arrange(plan, 200, 64)
    assert scratch.turned.shape[1] >= 200 + 2 * plan.reach_px


def test_what_does_not_fit_is_refused() -> None:
    plan = PLANS["basic25"]
    tile = np.zeros((1, 16 + 66, 24 + 66), np.float32)
    for shape in ((5, 19, 64), (6, 18, 64), (8, 19, 64), (0, 19, 64)):
        with pytest.raises(ValueError, match="do not fit"):
            fill(plan, tile, aligned(shape), Scratch())
    with pytest.raises(ValueError, match="channels"):
        fill(plan, np.zeros((2, 82, 90), np.float32), aligned((6, 19, 64)), Scratch())
    scratch = Scratch()
    fill(plan, tile, aligned((6, 19, 64)), scratch)
    with pytest.raises(ValueError, match="no tile was loaded"):
        compute(plan_features(SETS["basic25"], 1, np.arange(25) < 3), scratch, 0, aligned((6, 3, 64)))
    with pytest.raises(ValueError, match="leaves out"):
        stack(plan_features(SETS["basic25"], 1, np.arange(25) < 3), tile)


def test_grey_level_is_the_median_of_the_first_row_after_scaling() -> None:
    row = np.array([[1.0, 3.0, np.nan, 5.0, 7.0]], np.float32)
    assert_array_equal(grey_level(row, None), np.array([3.0], np.float32))
    scale = Scale(np.array([1.0], np.float32), np.array([2.0], np.float32))
    assert_array_equal(grey_level(row[:, [0, 1, 3]], scale), np.array([1.0], np.float32))
    assert normalize.to_float(row[:, None], None)[0, 0, 2] == 0.0
