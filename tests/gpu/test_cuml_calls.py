"""What we use of cuML and treelite, against the installed wheels; a card only for the last test."""

from __future__ import annotations

import inspect
import json
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.ensemble import RandomForestClassifier

from segmentd.compute.forest import predict
from segmentd.engine.cuda_check import find_cards
from segmentd.models import cuml_forest, training

OPTIONS = ("n_estimators", "max_depth", "n_bins", "random_state", "n_streams", "oob_score", "output_type")
CHANCE = np.random.default_rng(2)
FEATURES = CHANCE.uniform(0, 9, (300, 5)).astype(np.float32)
LABELS = (1 + np.digitize(FEATURES[:, 0] * FEATURES[:, 1], (9, 30))).astype(np.uint8)


@pytest.mark.gpu_wheels
def test_treelite_writes_what_we_read() -> None:
    treelite = pytest.importorskip("treelite", reason="needs the extra gpu: treelite")
    made = RandomForestClassifier(7, random_state=1).fit(FEATURES, LABELS)
    text = treelite.sklearn.import_model(made).dump_as_json()
    found = cuml_forest.forest_arrays(json.loads(text), 3)
    stack = CHANCE.uniform(0, 9, (5, 20, 30)).astype(np.float32)
    assert_array_equal(predict(found, stack), predict(training.forest_arrays(made), stack))


@pytest.mark.gpu_wheels
def test_the_forest_of_cuml_takes_our_options() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cuml = pytest.importorskip("cuml", reason="needs the extra cuml")
    forest = cuml.ensemble.RandomForestClassifier
    assert set(OPTIONS) <= set(inspect.signature(forest.__init__).parameters)
    assert callable(forest.as_treelite)


@pytest.mark.gpu
def test_a_forest_trained_on_a_card_predicts_as_cuml_does() -> None:
    if not find_cards().cards:
        pytest.skip("there is no card")
    cuml = pytest.importorskip("cuml", reason="needs the extra cuml")
    fitted = cuml_forest.fit(FEATURES, LABELS, 3, seed=1, trees=9)
    made = cuml.ensemble.RandomForestClassifier(
        n_estimators=9, max_depth=None, n_bins=cuml_forest.BINS, random_state=1, n_streams=1
    ).fit(FEATURES, LABELS.astype(np.int32) - 1)
    found = predict(fitted.forest, FEATURES.T.reshape(5, 20, 15)).reshape(3, -1).T
    np.testing.assert_allclose(found, np.asarray(made.predict_proba(FEATURES)), atol=1e-6)
