"""Smaller levels: sizes, means, most frequent labels, and that bands make no difference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from segmentd.imagefile.pyramid import SmallerLevels, halved, level_shapes
from segmentd.records import PixelType

RANDOM = np.random.default_rng(0)


def test_sizes_end_where_a_viewer_reads_a_level_whole() -> None:
    assert level_shapes(4096, 4096) == [(4096, 4096)]
    assert level_shapes(1, 4097) == [(1, 4097), (1, 2049), (1, 1025), (1, 513)]
    assert level_shapes(100_000, 100_000)[-1] == (782, 782)


def test_the_most_frequent_label_of_all_there_are() -> None:
    for corners in itertools.product(range(4), repeat=4):
        (found,) = halved(np.array(corners, np.uint8).reshape(2, 2), labels=True).ravel()
        assert corners.count(found) == max(map(corners.count, corners))


@pytest.mark.parametrize("pixel_type", list(PixelType))
def test_means_do_not_overflow(pixel_type: PixelType) -> None:
    dtype = np.dtype(pixel_type.value)
    most = np.iinfo(dtype).max if dtype.kind != "f" else np.finfo(dtype).max
    pixels = np.full((2, 3), most, dtype)
    np.testing.assert_array_equal(halved(pixels, labels=False), np.full((1, 2), most, dtype))
    if dtype.kind == "i":
        np.testing.assert_array_equal(halved(~pixels, labels=False), np.full((1, 2), ~pixels[0, 0]))
    pixels = RANDOM.integers(0, 100, (64, 31)).astype(dtype)
    padded = np.pad(pixels, ((0, 0), (0, 1)), mode="edge").astype(float)
    mean = padded.reshape(32, 2, 16, 2).mean(axis=(1, 3))
    expected = mean if dtype.kind == "f" else np.floor(mean + 0.5)
    np.testing.assert_array_equal(halved(pixels, labels=False), expected)


def test_infinities_and_nan_stay_what_they_are() -> None:
    pixels = np.array([[np.inf, -np.inf, 1, np.inf], [0, 0, 1, 1]], np.float32)
    np.testing.assert_array_equal(halved(pixels, labels=False), [[np.nan, np.inf]])


@pytest.mark.parametrize("labels", [True, False])
def test_levels_from_bands_are_those_of_the_whole_plane(labels: bool) -> None:
    plane = RANDOM.integers(0, 4, (5000, 9), np.uint8)
    shapes = level_shapes(*plane.shape)
    levels = SmallerLevels(shapes, 256, labels=labels)
    found: dict[int, list[np.ndarray]] = {}
    for top in range(0, len(plane), 256):
        for level, rows in levels.add(plane[top : top + 256]):
            assert len(rows) == 256 or 256 * len(found[level]) + len(rows) == shapes[level][0]
            found.setdefault(level, []).append(rows)
    whole = plane
    for level in range(1, len(shapes)):
        whole = halved(whole, labels=labels)
        np.testing.assert_array_equal(np.concatenate(found[level]), whole)
