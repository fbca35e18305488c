"""Equal features give scikit-learn's probabilities, to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.ensemble import RandomForestClassifier

from segmentd.compute.decide import apply_minimum_confidence, decide
from segmentd.compute.forest import predict
from segmentd.models.training import forest_arrays


def samples(classes: int, seed: int, repeats: int = 1):
    rng = np.random.default_rng(seed)
    features = np.repeat(rng.normal(size=(300, 7)).astype(np.float32), repeats, axis=0)
    labels = rng.integers(1, classes + 1, len(features)).astype(np.uint8)
    labels[:classes] = np.arange(1, classes + 1)
    return features, labels


@pytest.mark.parametrize(
    ("classes", "trees", "options", "repeats"),
    [
        (2, 25, {}, 1),
        (3, 100, {}, 1),
        (5, 25, {"max_depth": 3}, 1),
        (4, 25, {"min_samples_leaf": 9}, 1),
        (3, 25, {}, 3),  # equal rows with different labels: impure leaves
        (2, 1, {"max_depth": 1}, 1),
        (255, 3, {}, 3),
        (2, 300, {}, 1),
    ],
)
def test_probabilities_equal_scikit_learn(classes: int, trees: int, options: dict, repeats: int) -> None:
    features, labels = samples(classes, seed=trees, repeats=repeats)
    classifier = RandomForestClassifier(n_estimators=trees, random_state=1, **options).fit(features, labels)
    forest = forest_arrays(classifier)
    forest.check()
    pixels = np.random.default_rng(9).normal(size=(7, 11, 13)).astype(np.float32)
    pixels[:, 0, :3] = features[:3].T  # values that lie on training samples
    scores = predict(forest, pixels)
    expected = classifier.predict_proba(pixels.reshape(7, -1).T).T.reshape(classes, 11, 13)
    assert_array_equal(scores, expected)
    found, confidence = decide(scores)
    assert_array_equal(found, classifier.classes_[expected.argmax(axis=0)])
    assert_array_equal(confidence, np.rint(100 * expected.max(axis=0)))


def test_a_threshold_equal_to_the_feature_goes_left() -> None:
    features = np.array([[0.1], [0.3]], np.float32)
    classifier = RandomForestClassifier(n_estimators=5, random_state=0, bootstrap=False).fit(features, [1, 2])
    forest = forest_arrays(classifier)
    threshold = np.float32(forest.threshold[0])
    around = np.array(
        [np.nextafter(threshold, np.float32(-9)), threshold, np.nextafter(threshold, np.float32(9))]
    )
    expected = classifier.predict_proba(around[:, None]).T
    assert_array_equal(predict(forest, around.reshape(1, 1, 3))[:, 0], expected)


def test_not_a_number_goes_right() -> None:
    features = np.array([[0.0], [1.0]], np.float32)
    classifier = RandomForestClassifier(n_estimators=3, random_state=0, bootstrap=False).fit(features, [1, 2])
    scores = predict(forest_arrays(classifier), np.full((1, 1, 1), np.nan, np.float32))
    assert_array_equal(scores[:, 0, 0], [0.0, 1.0])


def test_a_forest_that_could_walk_astray_is_refused() -> None:
    classifier = RandomForestClassifier(n_estimators=2, random_state=0).fit([[0.0], [1.0], [2.0]], [1, 2, 1])
    forest = forest_arrays(classifier)
    inner = int(np.flatnonzero(forest.feature >= 0)[0])
    loop = forest.left.copy()
    loop[inner] = inner
    outside = forest.right.copy()
    outside[inner] = 999
    for broken in (
        replace(forest, left=loop),
        replace(forest, right=outside),
        replace(forest, feature_count=0),
    ):
        with pytest.raises(ValueError, match=r"outside the forest|does not exist"):
            broken.check()


def test_minimum_confidence_keeps_equal_and_drops_less() -> None:
    labels = np.array([[1, 2, 3]], np.uint8)
    confidence = np.array([[59, 60, 61]], np.uint8)
    assert_array_equal(apply_minimum_confidence(labels, confidence, 60), [[0, 2, 3]])
    assert_array_equal(apply_minimum_confidence(labels, confidence, 0), labels)


def test_equal_scores_give_the_first_class_and_half_rounds_to_even() -> None:
    scores = np.array([[0.5, 0.125, 0.375], [0.5, 0.875, 0.625]]).reshape(2, 1, 3)
    labels, confidence = decide(scores)
    assert_array_equal(labels, [[1, 2, 2]])
    assert_array_equal(confidence, [[50, 88, 62]])
