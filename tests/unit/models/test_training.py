"""Training: reproducible, honest scores, clear refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.ensemble import RandomForestClassifier

from segmentd.compute import forest
from segmentd.compute.features import feature_sets
from segmentd.errors import Reason, SegmentdError
from segmentd.models import training

NAMES = [f"f{i}" for i in range(25)]
SET = feature_sets()["basic25"]


def plane_and_labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    plane = rng.integers(0, 4000, (1, 70, 300)).astype(np.uint16)
    plane[:, :, 150:] += 3000
    labels = np.zeros((70, 300), np.uint8)
    labels[10:14, 20:60] = 1
    labels[40:44, 250:299] = 2  # in the second training tile
    return plane, labels


def test_collected_features_are_those_of_the_labelled_pixels() -> None:
    plane, labels = plane_and_labels()
    samples = training.collect(plane, labels, SET, "none")
    assert_array_equal(np.bincount(samples.labels), [0, 160, 196])
    # Without filtering: basic33 starts with the image itself.
    bare = training.collect(plane, labels, feature_sets()["basic33"], "none")
    assert_array_equal(np.sort(bare.features[:, 0]), np.sort(plane[0][labels > 0].astype(np.float32)))


def test_the_same_seed_gives_the_same_forest_on_any_number_of_threads() -> None:
    plane, labels = plane_and_labels()
    samples = training.collect(plane, labels, SET, "none")
    one = training.train(samples, 2, NAMES, seed=3, threads=1)
    two = training.train(samples, 2, NAMES, seed=3, threads=2)
    other = training.train(samples, 2, NAMES, seed=4)
    assert_array_equal(one.forest.threshold, two.forest.threshold)
    assert one.scores == two.scores
    assert not np.array_equal(one.forest.threshold, other.forest.threshold)


def test_scores_are_scikit_learns_out_of_bag_scores() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(400, 25)).astype(np.float32)
    labels = (1 + (features[:, 0] + 0.5 * rng.normal(size=400) > 0)).astype(np.uint8)
    trained = training.train(training.Samples(features, labels), 2, NAMES, seed=7)
    reference = RandomForestClassifier(n_estimators=25, random_state=7, oob_score=True).fit(features, labels)
    assert trained.scores["out_of_bag_accuracy"] == pytest.approx(reference.oob_score_, abs=1e-6)
    assert np.sum(trained.scores["out_of_bag_confusion"]) == 400
    assert max(trained.scores["feature_importance"], key=trained.scores["feature_importance"].get) == "f0"
    stack = features.T.reshape(25, 20, 20)
    expected = reference.predict_proba(features).T.reshape(2, 20, 20)
    assert_array_equal(forest.predict(trained.forest, stack), expected)


def test_pixels_that_are_not_numbers_are_not_learnt_from() -> None:
    plane, labels = plane_and_labels()
    values = plane.astype(np.float32)
    values[0, 11, 30] = np.nan
    samples = training.collect(values, labels, SET, "percentile")
    assert len(samples.labels) == 160 + 196 - 1
    assert np.isfinite(samples.features).all()


@pytest.mark.parametrize(("labels", "classes"), [([1, 1, 1], 2), ([1, 2, 3], 2), ([1, 3, 3], 3), ([1], 1)])
def test_classes_without_labels_are_refused(labels: list[int], classes: int) -> None:
    samples = training.Samples(np.zeros((len(labels), 25), np.float32), np.array(labels, np.uint8))
    with pytest.raises(SegmentdError, match="each with labelled pixels") as caught:
        training.train(samples, classes, NAMES)
    assert caught.value.reason is Reason.BAD_TRAINING_DATA


def test_an_unlabelled_plane_gives_no_samples() -> None:
    plane, labels = plane_and_labels()
    samples = training.collect(plane, np.zeros_like(labels), SET, "none")
    assert samples.features.shape == (0, 25)
    assert replace(samples).labels.size == 0
