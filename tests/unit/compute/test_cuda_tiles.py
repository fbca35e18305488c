"""The CUDA source, compiled for the processor: the same bits as the processor's own code."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.ensemble import RandomForestClassifier

from segmentd.compute import fast_features, normalize, packets
from segmentd.compute.cuda.tiles import TileProgram
from segmentd.compute.decide import decide
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import compute_features, feature_sets
from segmentd.compute.forest import ForestArrays, predict
from segmentd.compute.packets.choice import processor_features
from segmentd.compute.packets.layout import PacketForest
from segmentd.models.training import forest_arrays

from .host_kernels import COMPILER, HostKernels

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
SIZE = 37, 53


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    return HostKernels(tmp_path_factory.mktemp("kernels"))


def image(channels: int, reach: int, seed: int = 0) -> np.ndarray:
    height, width = SIZE
    shape = (channels, height + 2 * reach, width + 2 * reach)
    return np.random.default_rng(seed).integers(0, 60_000, shape, dtype=np.uint16)


def no_forest() -> PacketForest:
    leaf = ForestArrays(
        *(np.array([-1], np.int32), np.zeros(1), np.array([-1], np.int32), np.array([-1], np.int32)),
        *(np.array([[1.0, 0.0]]), np.zeros(1, np.int32)),
        feature_count=1,
    )
    return packets.compile_forest(leaf, np.array([0]))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", ["basic25", "basic33"])
def test_features_have_the_bits_of_the_processor(kernels: HostKernels, name: str, channels: int) -> None:
    feature_set = feature_sets()[name]
    plan = plan_features(feature_set, channels)
    pixels = image(channels, plan.reach_px)
    scale = normalize.measure(lambda: [pixels], "percentile")
    level = fast_features.grey_level(pixels[:, 0], scale)
    found = TileProgram(np, kernels, plan, no_forest()).features(pixels, scale, level)[plan.plane_of_feature]
    tile = normalize.to_float(pixels, scale)
    assert_allclose(found, compute_features(tile, feature_set), rtol=0, atol=1e-5)
    if "fma" in processor_features():
        assert_array_equal(found, fast_features.stack(plan, tile, level))


def trained(classes: int, impure: bool, trees: int = 25) -> ForestArrays:
    chance = np.random.default_rng(classes)
    stack = chance.normal(0, 1, (400, 25)).astype(np.float32)
    labels = chance.integers(0, classes, 400) if impure else np.arange(400) % classes
    deepest = 5 if impure else None
    made = RandomForestClassifier(trees, max_depth=deepest, random_state=1).fit(stack, labels)
    return forest_arrays(made)


@pytest.mark.parametrize(
    ("classes", "impure", "trees"),
    [(2, False, 25), (3, False, 8), (200, False, 25), (3, True, 25), (20, True, 7), (2, False, 300)],
)
def test_labels_and_confidence_are_those_of_the_plain_walk(
    kernels: HostKernels, classes: int, impure: bool, trees: int
) -> None:
    forest = trained(classes, impure, trees)
    plan = plan_features(feature_sets()["basic25"], 1)
    compiled = packets.compile_forest(forest, plan.plane_of_feature)
    assert compiled.pure == (not impure and trees <= 255)
    program = TileProgram(np, kernels, plan, compiled)
    pixels = np.random.default_rng(5).normal(0, 2, (1, *(edge + 2 * plan.reach_px for edge in SIZE)))
    level = np.zeros(1, np.float32)
    stack = program.features(pixels.astype(np.float32), None, level)[plan.plane_of_feature]
    labels, confidence = program.run(pixels.astype(np.float32), None, level)
    expected = decide(predict(forest, stack))
    assert_array_equal(labels, expected[0])
    assert_array_equal(confidence, expected[1])
    scores = program.scores(pixels.astype(np.float32), None, level)
    assert_array_equal(scores, predict(forest, stack).astype(np.float32))
    assert len(np.unique(labels)) > 1


def test_pixels_that_are_no_numbers_count_as_zero(kernels: HostKernels) -> None:
    plan = plan_features(feature_sets()["basic25"], 1)
    program = TileProgram(np, kernels, plan, no_forest())
    pixels = image(1, plan.reach_px).astype(np.float32)
    zero, odd = pixels.copy(), pixels.copy()
    zero[0, 50:53, 60], odd[0, 50:53, 60] = 0, (np.nan, np.inf, -np.inf)
    level = np.array([3.5], np.float32)
    assert_array_equal(program.features(odd, None, level), program.features(zero, None, level))
