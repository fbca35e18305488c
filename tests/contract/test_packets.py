"""The walk by packets gives what scikit-learn and the simple traversal give, to the bit, on every kernel."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.ensemble import RandomForestClassifier

from segmentd.compute.decide import decide
from segmentd.compute.forest import ForestArrays, predict
from segmentd.compute.packets import (
    Kernel,
    PacketForest,
    Scratch,
    choose_kernel,
    classification,
    classify,
    compile_forest,
    plain,
    scores,
    warm_up,
)
from segmentd.compute.packets.choice import NEEDS, processor_features
from segmentd.compute.packets.layout import LEAF
from segmentd.models.training import forest_arrays

FEATURES = 7
# AVX-512 code runs everywhere: where the instructions are missing, LLVM spells them out.
KERNELS = [kernel for kernel in Kernel if kernel is Kernel.AVX512 or NEEDS[kernel] <= processor_features()]
FORESTS = {
    "two classes": (2, 25, {}, 1),
    "100 trees": (3, 100, {}, 1),
    "one tree": (5, 1, {}, 1),
    "two trees": (2, 2, {}, 1),
    "the most trees that vote": (2, 255, {}, 1),
    "more trees than can vote": (2, 300, {}, 1),
    "17 classes": (17, 25, {}, 1),
    "255 classes": (255, 2, {}, 1),
    "limited depth": (5, 25, {"max_depth": 3}, 1),
    "stumps": (2, 25, {"max_depth": 1}, 1),
    "large leaves": (3, 25, {"min_samples_leaf": 9}, 1),
    "equal rows with different labels": (3, 25, {}, 3),
    "255 classes, impure": (255, 3, {}, 3),
    "single leaves": (3, 25, {"min_samples_leaf": 400}, 1),
}


@cache
def trained(name: str) -> tuple[RandomForestClassifier, ForestArrays]:
    classes, trees, options, repeats = FORESTS[name]
    rng = np.random.default_rng(trees)
    samples = np.repeat(rng.normal(size=(400 if classes < 100 else 700, FEATURES)), repeats, axis=0)
    labels = rng.integers(1, classes + 1, len(samples)).astype(np.uint8)
    labels[:classes] = np.arange(1, classes + 1)
    classifier = RandomForestClassifier(n_estimators=trees, random_state=1, **options)
    classifier.fit(samples.astype(np.float32), labels)
    return classifier, forest_arrays(classifier)


def pixels_on_thresholds(forest: ForestArrays, height: int, width: int, seed: int = 3) -> np.ndarray:
    """Random features, of which a third are a threshold of the forest or the next number up or down."""
    rng = np.random.default_rng(seed)
    stack = rng.normal(size=(FEATURES, height, width)).astype(np.float32)
    for feature in range(FEATURES):
        thresholds = forest.threshold[forest.feature == feature].astype(np.float32)
        if not len(thresholds):
            continue
        chosen = rng.choice(thresholds, size=(height, width))
        towards = rng.choice(np.array([-np.inf, 0, np.inf], np.float32), size=(height, width))
        near = np.where(towards == 0, chosen, np.nextafter(chosen, towards))
        stack[feature] = np.where(rng.random((height, width)) < 0.33, near, stack[feature])
    return stack


def packed(stack: np.ndarray, beyond_the_edge: float = 1e30) -> np.ndarray:
    planes, height, width = stack.shape
    rows, columns = -(-height // 8), -(-width // 8)
    padded = np.full((planes, 8 * rows, 8 * columns), beyond_the_edge, np.float32)
    padded[:, :height, :width] = stack
    packets = padded.reshape(planes, rows, 8, columns, 8).transpose(1, 3, 0, 2, 4)
    return aligned(packets.reshape(rows * columns, planes, 64))


def aligned(array: np.ndarray, offset: int = 0) -> np.ndarray:
    memory = np.empty(array.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def compiled(forest: ForestArrays) -> PacketForest:
    return compile_forest(forest, np.arange(forest.feature_count))


def labelled(forest: PacketForest, stack: np.ndarray, kernel: Kernel, scratch: Scratch | None = None):
    labels, confidence = (np.full(stack.shape[1:], 99, np.uint8) for _ in range(2))
    classify(forest, packed(stack), labels, confidence, scratch or Scratch(), kernel)
    return labels, confidence


def scored(forest: PacketForest, stack: np.ndarray, kernel: Kernel) -> np.ndarray:
    return scores(forest, packed(stack), *stack.shape[1:], Scratch(), kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", FORESTS)
def test_scores_and_labels_equal_scikit_learn_and_the_simple_traversal(name: str, kernel: Kernel) -> None:
    classifier, arrays = trained(name)
    stack = pixels_on_thresholds(arrays, 19, 21)
    probabilities = classifier.predict_proba(stack.reshape(FEATURES, -1).T)
    expected = probabilities.T.reshape(-1, 19, 21)
    forest = compiled(arrays)
    found = scored(forest, stack, kernel)
    assert_array_equal(found, expected)
    assert_array_equal(found, predict(arrays, stack))
    labels, confidence = labelled(forest, stack, kernel)
    assert_array_equal(labels.ravel(), classifier.predict(stack.reshape(FEATURES, -1).T))
    assert_array_equal(confidence, np.rint(100 * expected.max(axis=0)))


def test_the_forests_take_both_ways() -> None:
    impure = {name for name in FORESTS if not compiled(trained(name)[1]).pure}
    assert impure == {
        "more trees than can vote",
        "limited depth",
        "stumps",
        "large leaves",
        "equal rows with different labels",
        "255 classes, impure",
        "single leaves",
    }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["two classes", "limited depth"])
def test_not_a_number_goes_right_and_infinity_is_a_number(name: str, kernel: Kernel) -> None:
    arrays = trained(name)[1]
    stack = pixels_on_thresholds(arrays, 16, 24)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4e38], np.float32)
    places = np.random.default_rng(1).random(stack.shape) < 0.4
    stack[places] = np.random.default_rng(2).choice(odd, places.sum())
    forest = compiled(arrays)
    assert_array_equal(scored(forest, stack, kernel), predict(arrays, stack))
    everywhere = np.full((FEATURES, 3, 3), np.nan, np.float32)
    assert_array_equal(scored(forest, everywhere, kernel), predict(arrays, everywhere))


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=12)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    name=st.sampled_from(["two classes", "17 classes", "large leaves"]),
    beyond=st.sampled_from([0.0, -1e30, 1e30]),
    seed=st.integers(0, 1000),
)
def test_any_shape(kernel: Kernel, height: int, width: int, name: str, beyond: float, seed: int) -> None:
    arrays = trained(name)[1]
    stack = pixels_on_thresholds(arrays, height, width, seed)
    expected = decide(predict(arrays, stack))
    # Rows of a wider plane, whose other pixels stay as they are
    plane = np.full((2, height, width + 5), 77, np.uint8)
    window = plane[:, :, 2 : 2 + width]
    classify(compiled(arrays), packed(stack, beyond), window[0], window[1], Scratch(), kernel)
    assert_array_equal(window, expected)
    assert np.all(plane[:, :, :2] == 77) and np.all(plane[:, :, 2 + width :] == 77)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_scratch_serves_one_forest_after_another(kernel: Kernel) -> None:
    scratch = Scratch()
    for name in ("two trees", "255 classes", "large leaves", "the most trees that vote", "two trees"):
        arrays = trained(name)[1]
        stack = pixels_on_thresholds(arrays, 9, 17)
        assert_array_equal(labelled(compiled(arrays), stack, kernel, scratch), decide(predict(arrays, stack)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_chain_as_deep_as_a_tree_can_be(kernel: Kernel) -> None:
    """One leaf at each level: as many levels as nodes, the queue almost empty all the way."""
    depth = 500
    inner = 2 * np.arange(depth)
    feature = np.full(2 * depth + 1, -1, np.int32)
    feature[inner] = 0
    threshold = np.full(2 * depth + 1, -2.0)
    threshold[inner] = np.arange(depth)
    left, right = (np.full(2 * depth + 1, -1, np.int32) for _ in range(2))
    left[inner], right[inner] = inner + 1, inner + 2
    value = np.eye(3)[np.arange(2 * depth + 1) % 3]
    arrays = ForestArrays(feature, threshold, left, right, value, np.zeros(1, np.int32), 1)
    stack = np.random.default_rng(0).integers(0, depth + 9, (1, 16, 40)).astype(np.float32)
    assert_array_equal(scored(compiled(arrays), stack, kernel), predict(arrays, stack))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_pixel_may_end_in_a_leaf_of_its_own(kernel: Kernel) -> None:
    """The most items that a packet can become: 64 leaves for each tree, in every packet."""
    rng = np.random.default_rng(0)
    samples = np.arange(64, dtype=np.float32)[:, None]
    for labels in (rng.integers(1, 4, 64), np.arange(64) % 2 + 1):
        classifier = RandomForestClassifier(50, random_state=0, bootstrap=False).fit(samples, labels)
        arrays = forest_arrays(classifier)
        stack = np.tile(np.arange(64, dtype=np.float32).reshape(1, 8, 8), (1, 3, 3))
        stack = stack[:, rng.permutation(24)]
        expected = classifier.predict(stack.reshape(1, -1).T).reshape(24, 24)
        assert_array_equal(labelled(compiled(arrays), stack, kernel)[0], expected)


def test_thresholds_beyond_float32() -> None:
    thresholds = np.array([1e300, -1e300, 1e-50, -1e-50, 0.1, np.inf, -np.inf])
    values = np.array(
        [-np.inf, -3.4028235e38, -1e-45, -0.0, 0.0, 1e-45, 0.1, 3.4028235e38, np.inf], np.float32
    )
    for threshold in thresholds:
        arrays = ForestArrays(
            np.array([0, -1, -1], np.int32),
            np.array([threshold, -2, -2]),
            np.array([1, -1, -1], np.int32),
            np.array([2, -1, -1], np.int32),
            np.array([[0.5, 0.5], [1, 0], [0, 1]]),
            np.zeros(1, np.int32),
            1,
        )
        stack = values.reshape(1, 1, -1)
        assert_array_equal(scored(compiled(arrays), stack, choose_kernel()), predict(arrays, stack))


def test_features_share_planes_and_unused_ones_have_none() -> None:
    arrays = trained("two classes")[1]
    stack = pixels_on_thresholds(arrays, 8, 16)
    stack[3] = stack[1]
    planes = np.array([4, 0, 1, 0, 2, 3, 5], np.int32)
    unused = replace(arrays, feature=np.append(arrays.feature, -1)[:-1], feature_count=FEATURES + 1)
    forest = compile_forest(unused, np.append(planes, -1))
    distinct = np.empty((6, 8, 16), np.float32)
    distinct[planes] = stack
    labels, confidence = labelled(forest, distinct, choose_kernel())
    assert_array_equal((labels, confidence), decide(predict(arrays, stack)))
    with pytest.raises(ValueError, match="has no plane"):
        compile_forest(arrays, np.where(planes == 3, -1, planes))
    with pytest.raises(ValueError, match="one for each feature"):
        compile_forest(arrays, planes[:-1])


def test_arrays_that_are_no_trees_are_refused() -> None:
    arrays = trained("two classes")[1]
    inner = np.flatnonzero(arrays.feature >= 0)
    shared = arrays.right.copy()
    shared[inner[0]] = arrays.left[inner[0]]
    with pytest.raises(ValueError, match="two parents"):
        compile_forest(replace(arrays, right=shared), np.arange(FEATURES))
    with pytest.raises(ValueError, match=r"outside 0\.\.1"):
        compile_forest(replace(arrays, value=arrays.value * 3), np.arange(FEATURES))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("left", 16 * 10**6, "outside the forest"),
        ("left", LEAF + 16 * 10**6, "outside the forest"),
        ("left", 17, "outside the forest"),
        ("left", 0, "before it"),
        ("plane_offset", 256 * FEATURES, "names a plane"),
        ("plane_offset", -256, "names a plane"),
        ("plane_offset", 4, "names a plane"),
    ],
)
def test_a_layout_that_could_walk_astray_is_refused(field: str, value: int, message: str) -> None:
    forest = compiled(trained("two classes")[1])
    nodes = aligned(forest.nodes)
    nodes[field][5] = value
    with pytest.raises(ValueError, match=message):
        replace(forest, nodes=nodes)


def test_a_node_has_one_parent_and_a_root_exists() -> None:
    forest = compiled(trained("two classes")[1])
    nodes = aligned(forest.nodes)
    nodes["left"][0] = nodes["right"][0]
    with pytest.raises(ValueError, match="two parents"):
        replace(forest, nodes=nodes)
    with pytest.raises(ValueError, match="outside the forest"):
        replace(forest, roots=np.full(3, 16 * 10**6, np.int32))
    with pytest.raises(ValueError, match="wrong type"):
        replace(forest, nodes=np.zeros((4, 4), np.int32))
    with pytest.raises(ValueError, match="cannot vote"):
        replace(forest, roots=np.tile(forest.roots, 20))


def test_a_leaf_counts_for_its_own_tree() -> None:
    for name in ("two classes", "large leaves"):
        forest = compiled(trained(name)[1])
        roots = forest.roots.copy()
        roots[[0, 1]] = roots[[1, 0]]
        with pytest.raises(ValueError, match="another tree"):
            replace(forest, roots=roots)
    with pytest.raises(ValueError, match="another tree"):
        replace(forest, leaf_trees=forest.leaf_trees[::-1].copy())
    with pytest.raises(ValueError, match="does not exist"):
        replace(forest, leaf_trees=forest.leaf_trees + np.int32(25))


def test_threads_with_a_scratch_each_do_not_disturb_one_another() -> None:
    forests = [trained(name)[1] for name in ("two classes", "17 classes", "large leaves")]
    tiles = [(forests[n % 3], pixels_on_thresholds(forests[n % 3], 40, 40, seed=n)) for n in range(12)]
    threads = threading.local()

    def run(tile):
        if not hasattr(threads, "scratch"):
            threads.scratch = Scratch()
        return labelled(compiled(tile[0]), tile[1], choose_kernel(), threads.scratch)

    with ThreadPoolExecutor(3) as pool:
        for (arrays, stack), found in zip(tiles, pool.map(run, tiles), strict=True):
            assert_array_equal(found, decide(predict(arrays, stack)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_warming_up_leaves_nothing_to_compile(kernel: Kernel) -> None:
    warm_up(kernel)
    compiled_kernel = classification._RUN.get(kernel, plain.score_pixels)
    before = len(compiled_kernel.signatures)
    arrays = trained("two trees")[1]
    labelled(compiled(arrays), pixels_on_thresholds(arrays, 8, 8), kernel)
    assert len(compiled_kernel.signatures) == before


def test_arguments_that_do_not_fit_are_refused() -> None:
    arrays = trained("two classes")[1]
    forest, kernel = compiled(arrays), choose_kernel()
    features = packed(pixels_on_thresholds(arrays, 16, 16))
    good = np.zeros((16, 16), np.uint8)
    fixed = np.zeros((16, 16), np.uint8)
    fixed.flags.writeable = False

    def run(features=features, labels=good, confidence=good) -> None:
        classify(forest, features, labels, confidence, Scratch(), kernel)

    for wrong in (
        {"features": features[:3]},
        {"features": features[:, :-1]},
        {"features": features[:, :, :32]},
        {"features": features.astype(np.float64)},
        {"features": np.asfortranarray(features)},
        {"features": aligned(features, offset=4)},
        {"features": features[0]},
        {"labels": np.zeros((16, 24), np.uint8), "confidence": np.zeros((16, 24), np.uint8)},
        {"confidence": np.zeros((16, 15), np.uint8)},
        {"labels": np.zeros((16, 16), np.int32)},
        {"labels": np.zeros((16, 32), np.uint8)[:, ::2]},
        {"labels": np.zeros((16, 16), np.uint8).T[::-1]},
        {"confidence": fixed},
    ):
        with pytest.raises(ValueError, match=r"features|labels|confidence"):
            run(**wrong)
    with pytest.raises(ValueError, match="packets"):
        scores(forest, features, 16, 17, Scratch(), kernel)
    run()
