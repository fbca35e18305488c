"""Forests of cuML as our arrays, from the text that treelite writes; scikit-learn where there is no cuML."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.compute.forest import predict
from segmentd.models import cuml_forest, training

CHANCE = np.random.default_rng(5)
FEATURES = CHANCE.uniform(0, 9, (200, 4)).astype(np.float32)
LABELS = (1 + np.digitize(FEATURES[:, 0] + FEATURES[:, 1], (6, 12))).astype(np.uint8)
NAMES = ["a", "b", "c", "d"]


def dumped(trained: training.TrainedForest) -> dict[str, Any]:
    """A forest as treelite writes it."""
    forest = trained.forest
    ends = [*forest.roots[1:], len(forest.feature)]
    trees = [{"nodes": []} for _ in forest.roots]
    for tree, start, end in zip(trees, forest.roots, ends, strict=True):
        for place in range(start, end):
            node: dict[str, Any] = {"node_id": int(place - start)}
            if forest.feature[place] < 0:
                node["leaf_value"] = forest.value[place].tolist()
            else:
                node |= {
                    "split_feature_id": int(forest.feature[place]),
                    "default_left": True,
                    "node_type": "numerical_test_node",
                    "comparison_op": "<=",
                    "threshold": float(forest.threshold[place]),
                    "left_child": int(forest.left[place] - start),
                    "right_child": int(forest.right[place] - start),
                }
            tree["nodes"].append(node)
    return {
        "threshold_type": "float64",
        "num_feature": forest.feature_count,
        "average_tree_output": True,
        "num_class": [forest.class_count],
        "trees": trees,
    }


@pytest.fixture(scope="module")
def trained() -> training.TrainedForest:
    return training.train(training.Samples(FEATURES, LABELS), 3, NAMES, seed=3, trees=6)


def test_predictions_are_those_of_the_forest(trained: training.TrainedForest) -> None:
    forest = cuml_forest.forest_arrays(dumped(trained), 3)
    stack = CHANCE.uniform(0, 9, (4, 30, 40)).astype(np.float32)
    assert_array_equal(predict(forest, stack), predict(trained.forest, stack))
    np.testing.assert_allclose(forest.value.sum(axis=1), 1)


def test_thresholds_are_kept_in_their_precision() -> None:
    def forest(threshold: float, comparison: str) -> float:
        nodes = [
            {"node_id": 0, "split_feature_id": 0, "comparison_op": comparison, "threshold": threshold}
            | {"left_child": 1, "right_child": 2},
            {"node_id": 1, "leaf_value": [1.0, 0.0]},
            {"node_id": 2, "leaf_value": [0.0, 1.0]},
        ]
        text = {"threshold_type": "float32", "num_feature": 1, "average_tree_output": True, "num_class": [2]}
        return float(cuml_forest.forest_arrays({**text, "trees": [{"nodes": nodes}]}, 2).threshold[0])

    assert forest(0.1, "<=") == np.float32(0.1)
    assert forest(0.1, "<") == np.nextafter(np.float32(0.1), np.float32(-1))
    with pytest.raises(ValueError, match="compares by =="):
        forest(0.1, "==")


def test_what_is_no_averaged_forest_is_refused(trained: training.TrainedForest) -> None:
    with pytest.raises(ValueError, match="not a forest of 3"):
        cuml_forest.forest_arrays({**dumped(trained), "average_tree_output": False}, 3)
    with pytest.raises(ValueError, match="not a forest of 2"):
        cuml_forest.forest_arrays(dumped(trained), 2)


def test_without_cuml_scikit_learn_trains_and_says_so(
    trained: training.TrainedForest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuml", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    other = training.train(training.Samples(FEATURES, LABELS), 3, NAMES, seed=3, trees=6, on_card=True)
    assert other.note == "cuML is not installed (extra `cuml`); trained by scikit-learn on the CPU"
    assert_array_equal(other.forest.threshold, trained.forest.threshold)
    assert other.library_versions == trained.library_versions


class FakeForest:
    """What we use of cuML's forest, with scikit-learn's numbers."""

    trained: training.TrainedForest
    fault: Exception | None = None

    def __init__(self, **options: Any) -> None:
        assert options["max_depth"] is None and options["n_streams"] == 1

    def fit(self, features: np.ndarray, labels: np.ndarray) -> None:
        if self.fault is not None:
            raise self.fault
        assert labels.min() == 0 and labels.dtype == np.int32
        self.oob_decision_function_ = np.eye(3)[labels]
        self.feature_importances_ = np.full(features.shape[1], 0.25, np.float32)

    def as_treelite(self) -> Any:
        import json

        return SimpleNamespace(dump_as_json=lambda: json.dumps(dumped(self.trained)))


@pytest.fixture
def cuml(monkeypatch: pytest.MonkeyPatch, trained: training.TrainedForest) -> type[FakeForest]:
    module = ModuleType("cuml")
    module.__spec__ = importlib.machinery.ModuleSpec("cuml", None)
    module.__version__ = "26.10"  # type: ignore[attr-defined]
    monkeypatch.setattr(FakeForest, "trained", trained, raising=False)
    module.ensemble = SimpleNamespace(RandomForestClassifier=FakeForest)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuml", module)
    return FakeForest


def test_a_forest_of_cuml_becomes_a_model(cuml: type[FakeForest], trained: training.TrainedForest) -> None:
    found = training.train(training.Samples(FEATURES, LABELS), 3, NAMES, trees=6, on_card=True)
    assert (found.note, found.library_versions["cuml"]) == ("", "26.10")
    assert found.scores["out_of_bag_accuracy"] == 1.0
    assert found.scores["feature_importance"] == dict.fromkeys(NAMES, 0.25)
    stack = CHANCE.uniform(0, 9, (4, 30, 40)).astype(np.float32)
    assert_array_equal(predict(found.forest, stack), predict(trained.forest, stack))


def test_a_card_that_fails_leaves_it_to_scikit_learn(
    cuml: type[FakeForest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeForest, "fault", RuntimeError("cudaErrorInsufficientDriver"))
    found = training.train(training.Samples(FEATURES, LABELS), 3, NAMES, trees=6, on_card=True)
    assert found.note == "cuML fails: cudaErrorInsufficientDriver; trained by scikit-learn on the CPU"
    assert "cuml" not in found.library_versions
