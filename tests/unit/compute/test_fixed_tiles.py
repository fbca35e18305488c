"""Tiles of one size cover an axis, each pixel once, with enough border between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd.compute.fixed_tiles import Span, cut, spans


@given(st.data())
def test_every_pixel_once_with_enough_border(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    border = data.draw(st.integers(0, (size - 1) // 2))
    length = data.draw(st.integers(1, 4000))
    tiles = spans(length, size, border)
    assert [tile.first for tile in tiles] == [0, *(tile.stop for tile in tiles[:-1])]
    assert tiles[-1].stop == length
    for tile in tiles:
        assert tile.size == size
        assert tile.first < tile.stop
        if length >= size:
            assert 0 <= tile.start <= length - size
        # One pixel less where rounding takes it, as in the program that these tiles are those of.
        assert tile.first == 0 or tile.first - tile.start >= border - 1
        assert tile.stop == length or tile.start + size - tile.stop >= border - 1


@pytest.mark.parametrize(
    ("size", "border", "length", "count", "inner"),
    [(512, 32, 2048, 5, 64), (512, 32, 1000, 3, 134), (512, 32, 513, 2, 255), (512, 64, 30000, 78, None)],
)
def test_known_layouts(size: int, border: int, length: int, count: int, inner: int | None) -> None:
    tiles = spans(length, size, border)
    assert len(tiles) == count
    if inner is not None:
        assert size - tiles[0].stop == inner


def test_a_small_plane_lies_in_the_middle_of_its_tile() -> None:
    assert spans(10, 15, 2) == [Span(-2, 15, 0, 10)]
    plane = np.arange(20, dtype=np.uint16).reshape(1, 4, 5)
    tile = cut(plane, Span(-1, 6, 0, 4), Span(-1, 8, 0, 5), 0, 4)
    np.testing.assert_array_equal(tile[0], np.pad(plane[0], ((1, 1), (1, 2)), mode="edge"))


def test_a_tile_within_a_band_is_a_view() -> None:
    band = np.zeros((1, 20, 30), np.uint8)
    tile = cut(band, Span(104, 10, 106, 110), Span(3, 8, 5, 9), 100, 500)
    assert tile.base is not None
    assert tile.shape == (1, 10, 8)


def test_a_border_must_leave_something() -> None:
    with pytest.raises(ValueError, match="leaves nothing"):
        spans(100, 32, 16)
