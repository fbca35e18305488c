"""The conditional random field: what it does to specks and borders, and that it is pydensecrf's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentd.compute import crf, crf_arrays, normalize
from segmentd.compute.postprocessing import postprocessings
from segmentd.models import bundle
from segmentd.settings.schema import WatchSettings

RNG = np.random.default_rng(12)
PARAMETERS = crf.Parameters()


def scene(channels: int = 1, classes: int = 2, noise: float = 0.3) -> tuple[crf.Window, np.ndarray]:
    """Vertical stripes of grey levels, and probabilities that are right but for noise."""
    truth = np.repeat(np.arange(60) // (60 // classes) % classes, 50).reshape(60, 50).T
    guide = np.stack([truth / classes + RNG.normal(0, 0.02, truth.shape)] * channels)
    scores = 0.6 * np.eye(classes)[truth].transpose(2, 0, 1) + noise * RNG.random((classes, *truth.shape))
    scores /= scores.sum(axis=0)
    return crf.Window(scores.astype(np.float32), guide.astype(np.float32)), truth


def test_specks_vanish_and_borders_follow_the_image() -> None:
    window, truth = scene(noise=1.5)
    before, after = window.scores.argmax(0), crf.infer(window, PARAMETERS).argmax(0)
    assert (before != truth).mean() > 0.05
    assert (after != truth).mean() < 0.002
    shifted = np.roll(window.scores, 3, axis=2)  # a model that puts borders three pixels off
    moved = crf.infer(replace(window, scores=shifted), PARAMETERS).argmax(0)[:, 3:]
    assert (shifted.argmax(0)[:, 3:] != truth[:, 3:]).mean() > 0.08
    assert (moved != truth[:, 3:]).mean() < 0.01


def test_without_weights_or_steps_nothing_changes() -> None:
    window, _ = scene(classes=3)
    for parameters in (
        replace(PARAMETERS, iterations=0, least_probability=1e-6),
        replace(PARAMETERS, smoothness_weight=0.0, appearance_weight=0.0, least_probability=1e-6),
    ):
        np.testing.assert_allclose(crf.infer(window, parameters), window.scores, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.integers(1, 4),
    classes=st.integers(2, 6),
    y=st.integers(0, 10**6),
)
def test_marginals_are_probabilities_for_any_size(
    height: int, width: int, channels: int, classes: int, y: int
) -> None:
    scores = RNG.dirichlet(np.ones(classes) * 0.3, (height, width)).transpose(2, 0, 1).astype(np.float32)
    guide = RNG.normal(0, 1, (channels, height, width)).astype(np.float32)
    marginals = crf.infer(crf.Window(scores, guide, y, y // 3), PARAMETERS)
    assert marginals.shape == scores.shape and marginals.dtype == np.float32
    assert marginals.min() >= 0
    np.testing.assert_allclose(marginals.sum(axis=0), 1, atol=1e-5)


def test_a_window_far_down_a_plane_is_like_one_at_its_origin() -> None:
    window, _ = scene(noise=1.0)
    here = crf.infer(window, PARAMETERS)
    # 3 and sqrt(3) standard deviations of 1.5 and 10 px are the lattice's periods: only y can match in px
    far = crf.infer(replace(window, y=90_000_000), PARAMETERS)
    np.testing.assert_allclose(far, here, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32"])
def test_the_guide_is_the_same_for_every_pixel_type(dtype: str) -> None:
    grey = RNG.integers(0, 101, (1, 40, 40))
    pixels = grey.astype(dtype)
    pixels[0, 0, 0] = np.iinfo(dtype).max if dtype != "float32" else 1e30
    scale = normalize.measure(lambda: [pixels], "percentile")
    assert scale is not None
    guide = crf.make_guide(pixels, scale)
    np.testing.assert_allclose(guide[0, 1:], (grey[0, 1:] - scale.offset[0]) / scale.divisor[0], atol=1e-5)
    assert guide[0, 0, 0] == 2  # one contrast range beyond the 99th percentile


def test_pixels_that_are_no_numbers_have_a_place_in_the_guide() -> None:
    pixels = np.linspace(5, 6, 100, dtype=np.float32).reshape(1, 10, 10)
    pixels[0, 4, 4:7] = np.nan, np.inf, -np.inf
    scale = normalize.measure(lambda: [pixels], "percentile")
    assert scale is not None
    guide = crf.make_guide(pixels, scale)
    assert guide[0, 4, 4:7].tolist() == [0, 0, 0]


def pydensecrf() -> Any:
    pytest.importorskip("pydensecrf", reason="needs the extra crf, which does not build for Python 3.13")
    from segmentd.compute import crf_pydensecrf

    return crf_pydensecrf


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (2, 3), (3, 5), (6, 2)])
def test_it_is_the_field_of_pydensecrf(channels: int, classes: int) -> None:
    window, _ = scene(channels, classes, noise=1.5)
    window = replace(window, y=1234, x=777)
    ours, theirs = crf.infer(window, PARAMETERS), pydensecrf().infer(window, PARAMETERS)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    np.testing.assert_array_equal(ours.argmax(0), theirs.argmax(0))


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (2, 3), (3, 5), (6, 2)])
def test_operations_on_whole_arrays_make_the_same_field(channels: int, classes: int) -> None:
    """What runs on cards, on numpy's arrays."""
    window, _ = scene(channels, classes, noise=1.5)
    window = replace(window, y=1234, x=777)
    ours, arrays = crf.infer(window, PARAMETERS), crf_arrays.infer(np, window, PARAMETERS)
    assert arrays.dtype == np.float32 and arrays.flags.c_contiguous
    np.testing.assert_allclose(arrays, ours, atol=1e-5)
    np.testing.assert_array_equal(arrays.argmax(0), ours.argmax(0))


def test_a_window_of_one_pixel_makes_the_same_field() -> None:
    window = crf.Window(np.array([0.3, 0.7], np.float32).reshape(2, 1, 1), np.zeros((1, 1, 1), np.float32))
    ours, arrays = crf.infer(window, PARAMETERS), crf_arrays.infer(np, window, PARAMETERS)
    np.testing.assert_allclose(arrays, ours, atol=1e-6)


def test_settings_know_every_postprocessing() -> None:
    names = [entry.name for entry in postprocessings()]
    literal, _ = get_args(WatchSettings.model_fields["postprocessing"].annotation)
    assert names == list(get_args(literal))
    assert names == list(bundle.POSTPROCESSINGS)
