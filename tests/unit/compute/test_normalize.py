"""Percentiles are numpy's, exact, and do not depend on the blocks they were counted in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from segmentd.compute.normalize import masked, measure, percentiles, to_float

PIXELS = st.sampled_from(["uint8", "uint16", "int16", "uint32", "float32"]).flatmap(
    lambda name: hnp.arrays(
        np.dtype(name),
        st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 9)),
        elements=st.floats(-1e6, 1e6, width=32) if name == "float32" else None,
    )
)


def halves(pixels: npt.NDArray[np.generic]) -> list[npt.NDArray[np.generic]]:
    middle = pixels.shape[1] // 2
    return [part for part in (pixels[:, middle:], pixels[:, :middle]) if part.size]


@settings(max_examples=60, deadline=None)
@given(PIXELS)
def test_percentiles_are_those_of_numpy(pixels: npt.NDArray[np.generic]) -> None:
    found = percentiles(lambda: [pixels], (1, 99))
    expected = np.percentile(pixels.reshape(len(pixels), -1).astype(np.float64), (1, 99), axis=1).T
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)
    assert_array_equal(percentiles(lambda: halves(pixels), (1, 99)), found)


def test_pixels_that_are_not_numbers_do_not_count() -> None:
    pixels = np.array([[[1.0, np.nan, 3.0, np.inf, -np.inf, 2.0]]], np.float32)
    assert_array_equal(percentiles(lambda: [pixels], (0, 50, 100)), [[1, 2, 3]])
    assert_array_equal(percentiles(lambda: [np.full((1, 2, 2), np.nan, np.float32)], (1, 99)), [[0, 1]])


def test_scaled_pixels_are_the_definition_in_float32() -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, (2, 50, 40)).astype(np.uint16)
    scale = measure(lambda: [pixels], "percentile")
    assert scale is not None
    for channel, found in zip(pixels, to_float(pixels, scale), strict=True):
        low, high = np.percentile(channel, (1, 99))
        expected = (channel.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-6))
        assert_array_equal(found, expected)


def test_a_flat_plane_does_not_divide_by_zero() -> None:
    scale = measure(lambda: [np.full((1, 4, 4), 7, np.uint8)], "percentile")
    assert_array_equal(to_float(np.full((1, 1, 1), 7, np.uint8), scale), [[[0]]])


def test_none_needs_no_measure_and_a_typo_is_refused() -> None:
    assert measure(lambda: [], "none") is None
    with pytest.raises(ValueError, match="normalization = 'percentil'"):
        measure(lambda: [], "percentil")


def test_masks() -> None:
    pixels = np.zeros((2, 2, 2), np.float32)
    assert masked(pixels) is None
    assert masked(pixels.astype(np.uint8)) is None
    pixels[1, 0, 1] = np.nan
    assert_array_equal(masked(pixels), [[False, True], [False, False]])
    assert_array_equal(to_float(pixels, None)[1], np.zeros((2, 2)))
