"""The same labels from a model of ours on every backend: scikit-learn, the simple walk, packets, nvforest.

nvforest runs on CPUs, too, without any driver; daemon/README.md says how to install it for this test.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from sklearn.ensemble import RandomForestClassifier

from segmentd.compute import fast_features
from segmentd.compute.decide import decide
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import feature_sets
from segmentd.compute.forest import ForestArrays, predict
from segmentd.models import training

from .test_packets import (
    FEATURES,
    FORESTS,
    KERNELS,
    compiled,
    labelled,
    pixels_on_thresholds,
    trained,
)

nvforest: Any = pytest.importorskip("nvforest", reason="needs nvforest-cu12 and treelite, which are 3 GB")


def loaded(forest: ForestArrays, precision: str | None = None) -> Any:
    """A forest of ours in nvforest, by way of treelite; without `precision`, in that of the thresholds."""
    from treelite import model_builder as build

    classes, starts = forest.class_count, [*forest.roots, len(forest.feature)]
    builder = build.ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=build.Metadata(
            num_feature=forest.feature_count,
            task_type="kMultiClf",
            average_tree_output=True,
            num_target=1,
            num_class=[classes],
            leaf_vector_shape=(1, classes),
        ),
        tree_annotation=build.TreeAnnotation(
            num_tree=forest.tree_count, target_id=[0] * forest.tree_count, class_id=[-1] * forest.tree_count
        ),
        postprocessor=build.PostProcessorFunc(name="identity_multiclass"),
        base_scores=[0.0] * classes,
    )
    for start, stop in pairwise(starts):
        builder.start_tree()
        for node in range(start, stop):
            builder.start_node(node - start)
            if forest.feature[node] < 0:
                builder.leaf(forest.value[node].tolist())
            else:
                builder.numerical_test(
                    feature_id=int(forest.feature[node]),
                    threshold=float(forest.threshold[node]),
                    default_left=False,
                    opname="<=",
                    left_child_key=int(forest.left[node] - start),
                    right_child_key=int(forest.right[node] - start),
                )
            builder.end_node()
        builder.end_tree()
    return nvforest.load_from_treelite_model(builder.commit(), device="cpu", precision=precision)


def probabilities(model: Any, stack: np.ndarray) -> np.ndarray:
    """Float64 (K, h, w) of a feature stack (F, h, w); float32 rows, as scikit-learn takes them."""
    rows = np.ascontiguousarray(stack.reshape(len(stack), -1).T)
    found = np.asarray(model.predict_proba(rows), np.float64).reshape(len(rows), -1)
    return found.T.reshape(-1, *stack.shape[1:])


@pytest.mark.parametrize("name", FORESTS)
def test_labels_are_those_of_scikit_learn_to_the_threshold(name: str) -> None:
    """A third of the features are thresholds, or the next number up or down."""
    classifier, arrays = trained(name)
    stack = pixels_on_thresholds(arrays, 40, 41)
    rows = stack.reshape(FEATURES, -1).T
    ours = decide(predict(arrays, stack))
    theirs = probabilities(loaded(arrays), stack)
    expected = classifier.predict_proba(rows).T.reshape(theirs.shape)
    np.testing.assert_allclose(theirs, expected, rtol=0, atol=1e-12)
    # Where two classes are equally likely up to the order of a sum, either may come first.
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    sure = first - second > 1e-12
    labels = theirs.argmax(axis=0) + 1
    assert_array_equal(labels[sure], classifier.predict(rows).reshape(sure.shape)[sure])
    assert_array_equal(labels[sure], ours[0][sure])
    assert_array_equal(np.take_along_axis(expected, labels[None] - 1, 0)[0] >= first - 1e-12, True)
    if compiled(arrays).pure:  # votes are whole numbers: no rounding, and ties go to the first class
        assert_array_equal(labels, ours[0])
    assert_array_equal(np.rint(100 * theirs.max(axis=0)), ours[1])


def test_in_single_precision_only_pixels_on_rounded_thresholds_differ() -> None:
    """Why our walk rounds thresholds down: to the nearest float32, a feature may come to the other side."""
    arrays = trained("two classes")[1]
    single = arrays.threshold.astype(np.float32)
    nearest = np.where(arrays.feature >= 0, single.astype(np.float64), arrays.threshold)
    rounded = ForestArrays(
        arrays.feature, nearest, arrays.left, arrays.right, arrays.value, arrays.roots, arrays.feature_count
    )
    stack = pixels_on_thresholds(arrays, 60, 60)
    found = probabilities(loaded(arrays, "single"), stack)
    np.testing.assert_allclose(found, predict(rounded, stack), rtol=0, atol=1e-6)
    assert np.any(predict(rounded, stack) != predict(arrays, stack))


@pytest.mark.parametrize("data_set", ["nuclei_bbbc039", "sandstone_xrm"])
def test_a_model_gives_the_same_labels_of_a_micrograph_on_every_backend(
    shared_data: Path, data_set: str
) -> None:
    strokes = sorted((shared_data / data_set / "scribbles").glob("*.tif"))[0]
    drawn = tifffile.imread(strokes)
    plane = tifffile.imread(shared_data / data_set / "images" / strokes.name)[None]
    feature_set = feature_sets()["basic33"]
    samples = training.collect(plane, drawn, feature_set, "none")
    classes = int(drawn.max())
    arrays = training.train(samples, classes, [str(n) for n in range(samples.features.shape[1])]).forest
    plan = plan_features(feature_set, 1)
    reach, part = plan.reach_px, plane[:, :300, :340].astype(np.float32)
    padded = np.pad(part, ((0, 0), (reach, reach), (reach, reach)), "symmetric")
    stack = fast_features.stack(plan, padded, fast_features.grey_level(plane[:, 0], None))
    assert stack.shape == (len(feature_set), 300, 340)
    classifier = RandomForestClassifier(n_estimators=25, random_state=0)
    classifier.fit(samples.features, samples.labels)
    labels = probabilities(loaded(arrays), stack).argmax(axis=0) + 1
    assert_array_equal(labels, classifier.predict(stack.reshape(len(stack), -1).T).reshape(labels.shape))
    assert_array_equal(labels, decide(predict(arrays, stack))[0])
    forest = compiled(arrays)
    for kernel in KERNELS:
        assert_array_equal(labels, labelled(forest, stack, kernel)[0])
