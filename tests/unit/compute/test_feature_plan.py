"""The plan computes what is read, each plane once, and shares what can be shared."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from segmentd.compute import filters, separable
from segmentd.compute.feature_plan import (
    ALONG_X,
    ALONG_Y,
    ALONG_Y_FOR_SOBEL,
    ALONG_Y_ONTO,
    SOBEL,
    plan_features,
)
from segmentd.compute.features import filter_sets
from segmentd.compute.separable import Taps

SETS = filter_sets()


def one_of(name: str, *features: str) -> np.ndarray:
    """Which features of a set are used, by name."""
    names = [feature.name for feature in SETS[name].features]
    assert set(features) <= set(names)
    return np.array([feature in features for feature in names])


def operations(plan) -> list[int]:
    return plan.steps["operation"].tolist()


def written(plan) -> list[int]:
    """Planes in the order in which they get their final values."""
    out: list[int] = []
    for step in plan.steps:
        targets = {
            ALONG_X: (),
            ALONG_Y_FOR_SOBEL: (),
            ALONG_Y: (step["plane"],),
            ALONG_Y_ONTO: (step["plane"], step["other"]),
            SOBEL: (step["plane"], step["other"]),
        }[int(step["operation"])]
        for plane in targets:
            if plane >= 0:
                if step["operation"] == ALONG_Y_ONTO and plane in out:
                    out.remove(plane)  # what the odd product is added to
                out.append(int(plane))
    return out


@pytest.mark.parametrize(("name", "planes"), [("basic25", 19), ("basic33", 32)])
def test_equal_features_are_one_plane(name: str, planes: int) -> None:
    plan = plan_features(SETS[name], 1)
    assert plan.plane_count == planes
    assert plan.plane_of_feature.dtype == np.int32
    assert set(plan.plane_of_feature) == set(range(planes))
    assert plan.reach_px == SETS[name].reach_px


def test_opposite_gabor_filters_share_a_plane() -> None:
    plan = plan_features(SETS["basic25"], 1)
    names = [feature.name for feature in SETS["basic25"].features]
    for first in range(10, 22):
        for second in range(10, 22):
            same_plane = plan.plane_of_feature[first] == plan.plane_of_feature[second]
            assert same_plane == (names[first] == names[second])


@pytest.mark.parametrize("name", ["basic25", "basic33"])
def test_every_plane_is_written_once(name: str) -> None:
    rng = np.random.default_rng(1)
    for share in (1.0, 0.6, 0.3, 0.1):
        used = rng.random(3 * len(SETS[name])) < share
        plan = plan_features(SETS[name], 3, used)
        assert sorted(written(plan)) == list(range(plan.plane_count))
        assert ((plan.plane_of_feature >= 0) == used).all()


def test_what_is_added_to_is_written_before() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        plan = plan_features(SETS["basic25"], 2, rng.random(50) < 0.4)
        ready: set[int] = set()
        for step in plan.steps:
            if step["operation"] == ALONG_Y:
                ready.add(int(step["plane"]))
            if step["operation"] == ALONG_Y_ONTO:
                assert {int(step["plane"]), int(step["other"])} & ready


def test_unused_features_cost_nothing() -> None:
    plan = plan_features(SETS["basic25"], 1, one_of("basic25", "gaussian sigma=2"))
    assert operations(plan) == [ALONG_X, ALONG_Y]
    assert plan.plane_count == 1
    assert plan.plane_of_feature[2] == 0
    assert (np.delete(plan.plane_of_feature, 2) == -1).all()
    assert plan.reach_px == 8


def test_a_gaussian_is_computed_once_for_itself_and_for_its_sobel_filter() -> None:
    both = one_of("basic25", "gaussian sigma=4", "sobel of gaussian sigma=4")
    alone = one_of("basic25", "sobel of gaussian sigma=4")
    expected = [ALONG_X, ALONG_Y_FOR_SOBEL, SOBEL]
    assert operations(plan_features(SETS["basic25"], 1, both)) == expected
    assert operations(plan_features(SETS["basic25"], 1, alone)) == expected
    assert plan_features(SETS["basic25"], 1, both).plane_count == 2
    assert plan_features(SETS["basic25"], 1, alone).plane_count == 1
    assert plan_features(SETS["basic25"], 1, alone).reach_px == 17


def test_mirrored_gabor_filters_share_both_products() -> None:
    used = one_of("basic25", "gabor sigma=1 theta=60 f=0.1", "gabor sigma=1 theta=120 f=0.1")
    plan = plan_features(SETS["basic25"], 1, used)
    assert operations(plan) == [ALONG_X, ALONG_Y, ALONG_X, ALONG_Y_ONTO]


def test_filters_that_begin_alike_share_the_pass_along_x() -> None:
    used = one_of("basic33", "gaussian sigma=1", "gaussian yy sigma=1")
    plan = plan_features(SETS["basic33"], 1, used)
    assert operations(plan) == [ALONG_X, ALONG_Y, ALONG_Y]


def test_no_feature_at_all_is_a_plan_too() -> None:
    plan = plan_features(SETS["basic25"], 2, np.zeros(50, np.bool_))
    assert (plan.plane_count, plan.reach_px, len(plan.steps)) == (0, 0, 0)


def test_used_must_name_every_feature() -> None:
    with pytest.raises(ValueError, match="50 features"):
        plan_features(SETS["basic25"], 2, np.ones(25, np.bool_))


def unfolded(taps: Taps) -> np.ndarray:
    """All weights from -reach to +reach."""
    half = np.array(taps.weights)
    if taps.even_length:
        return np.concatenate([half[:0:-1], half[1:], [0.0]])
    return np.concatenate([-half[:0:-1] if taps.odd else half[:0:-1], half[:1] * (not taps.odd), half[1:]])


def kernel(feature: separable.Separable) -> np.ndarray:
    """The two-dimensional kernel."""
    out = np.outer(unfolded(feature.first.along_y), unfolded(feature.first.along_x))
    if feature.second is not None:
        second = np.outer(unfolded(feature.second.along_y), unfolded(feature.second.along_x))
        out = out + feature.sign * second
    return out


@pytest.mark.parametrize("theta", [0, 30, 60, 90, 120, 135, 180, 200, 240, 300])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_gabor_products_make_the_kernel(theta: int, sigma: float) -> None:
    expected = filters.gabor_kernel(sigma, theta, 0.13)
    assert_allclose(kernel(separable.gabor(sigma, theta, 0.13)), expected, atol=1e-8)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 16])
def test_mean_weights_are_equal_and_sum_to_one(size: int) -> None:
    weights = kernel(separable.mean(size))
    assert_allclose(weights[weights != 0], 1 / size**2, rtol=1e-6)
    assert np.count_nonzero(weights) == size**2


@pytest.mark.parametrize("name", ["basic25", "basic33"])
def test_separable_and_plain_form_read_equally_far(name: str) -> None:
    for feature in SETS[name].features:
        assert feature.separable.reach_px == feature.reach_px, feature.name


@pytest.mark.parametrize("name", ["basic25", "basic33"])
def test_gain_is_what_an_even_image_becomes(name: str) -> None:
    for feature in SETS[name].features:
        if not feature.separable.sobel:
            even = np.full((80, 80), 1.0)
            assert_allclose(feature.apply(even)[40, 40], feature.separable.first.gain, atol=1e-6)
