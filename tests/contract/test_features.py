"""Features equal the plain formulas; labels and confidence do not depend on the tiling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import ndimage
from scipy.signal import convolve2d

from segmentd.compute.features import compute_features, filter_sets
from segmentd.compute.tiling import cut
from segmentd.records import Region

RNG = np.random.default_rng(5)
IMAGE = (RNG.normal(900, 250, (61, 83)) + 400 * np.sin(np.arange(83) / 6)).astype(np.float32)


def gabor_by_definition(image, sigma, degrees, frequency):
    """Convolution with the kernel written out point by point."""
    radius = int(4 * sigma + 0.5)
    kernel = np.empty((2 * radius + 1, 2 * radius + 1))
    t = np.deg2rad(degrees)
    for i, y in enumerate(range(-radius, radius + 1)):
        for j, x in enumerate(range(-radius, radius + 1)):
            envelope = np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
            kernel[i, j] = envelope * np.cos(2 * np.pi * frequency * (x * np.cos(t) + y * np.sin(t)))
    return convolve2d(np.pad(image.astype(float), radius, mode="symmetric"), kernel, mode="valid")


def gaussian(image, sigma):
    return image.astype(float) if sigma == 0 else ndimage.gaussian_filter(image.astype(float), sigma)


def sobel(image):
    return np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1))


def second(image):
    orders = ((0, 2), (2, 0), (1, 1))
    return [ndimage.gaussian_filter(image.astype(float), 1.0, order=order) for order in orders]


def basic25_by_definition(image):
    gaussians = [gaussian(image, sigma) for sigma in (0.7, 1, 2, 4, 8)]
    gabors = [gabor_by_definition(image, 1, t, f) for f in (0.1, 0.2) for t in (0, 60, 120, 180, 240, 300)]
    return np.array([*gaussians, *map(sobel, gaussians), *gabors, *second(image)])


def basic33_by_definition(image):
    means = [ndimage.uniform_filter(image.astype(float), size) for size in (1, 2, 4, 8, 16)]
    gabors = [gabor_by_definition(image, s, 180, f) for s in (1, 3) for f in (0.05, 0.25)]
    gaussians = [gaussian(image, 0.5 * step) for step in range(20)]
    return np.array([*gaussians, sobel(image.astype(float)), *gabors, *means, *second(image)])


@pytest.mark.parametrize(
    ("name", "definition", "count"),
    [("basic25", basic25_by_definition, 25), ("basic33", basic33_by_definition, 33)],
)
def test_features_equal_the_formulas(name, definition, count) -> None:
    feature_set = filter_sets()[name]
    reach = feature_set.reach_px
    assert len(feature_set) == count
    whole = Region(0, 0, *IMAGE.shape)
    stack = compute_features(cut(IMAGE[None], whole, reach, reach), feature_set)
    expected = definition(IMAGE)
    assert stack.dtype == np.float32
    ranges = np.ptp(expected, axis=(1, 2))
    worst = np.abs(stack - expected).max(axis=(1, 2)) / ranges
    assert worst.max() < 1e-5


@pytest.mark.parametrize("name", ["basic25", "basic33"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_part_has_the_bits_of_the_whole(name: str, data: st.DataObject) -> None:
    feature_set = filter_sets()[name]
    reach = feature_set.reach_px
    height, width = data.draw(st.integers(1, 61)), data.draw(st.integers(1, 83))
    image = IMAGE[None, :height, :width]
    whole = compute_features(cut(image, Region(0, 0, height, width), reach, reach), feature_set)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    part = Region(y, x, data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x)))
    stack = compute_features(cut(image, part, reach, reach), feature_set)
    assert_array_equal(stack, whole[:, part.y : part.y + part.height, part.x : part.x + part.width])


def test_channels_follow_one_another() -> None:
    feature_set = filter_sets()["basic25"]
    two = np.stack([IMAGE, IMAGE[::-1]])
    reach = feature_set.reach_px
    whole = Region(0, 0, *IMAGE.shape)
    stack = compute_features(cut(two, whole, reach, reach), feature_set)
    second_alone = compute_features(cut(two[1:], whole, reach, reach), feature_set)
    assert_array_equal(stack[25:], second_alone)
