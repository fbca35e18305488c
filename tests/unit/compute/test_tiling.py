"""Tiles cover a plane exactly once and mirror like scipy's `reflect`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from segmentd.compute.tiling import cover, cut, mirror
from segmentd.records import Region


@given(st.integers(1, 90), st.integers(1, 90), st.integers(16, 64))
def test_every_pixel_is_covered_exactly_once(height: int, width: int, tile_px: int) -> None:
    hits = np.zeros((height, width), int)
    for region in cover(height, width, tile_px):
        hits[region.y : region.y + region.height, region.x : region.x + region.width] += 1
    assert (hits == 1).all()


def test_a_tile_smaller_than_the_minimum_is_refused() -> None:
    with pytest.raises(ValueError, match="tile_px = 8"):
        next(cover(20, 20, 8))


@given(st.integers(1, 7), st.integers(0, 40))
def test_mirror_is_numpys_symmetric_padding(size: int, pad: int) -> None:
    line = np.arange(size)
    assert_array_equal(line[mirror(-pad, size + pad, 0, size)], np.pad(line, pad, mode="symmetric"))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 50), st.integers(16, 40), st.integers(0, 9))
def test_a_cut_with_a_wide_border_is_a_window_of_the_padded_plane(
    height: int, width: int, reach: int, tile_px: int, extra: int
) -> None:
    pixels = np.arange(2 * height * width).reshape(2, height, width)
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    for core in cover(height, width, tile_px):
        window = padded[
            :, core.y : core.y + core.height + 2 * reach, core.x : core.x + core.width + 2 * reach
        ]
        assert_array_equal(cut(pixels, core, reach, reach + extra), window)


def test_a_narrow_border_looks_no_further_than_itself() -> None:
    pixels = np.arange(100).reshape(1, 1, 100)
    tile = cut(pixels, Region(0, 40, 1, 16), reach_px=5, border_px=2)
    assert_array_equal(tile[0, 5, :7], [40, 39, 38, 38, 39, 40, 41])
    assert tile.min() == 38
    assert tile.max() == 57
