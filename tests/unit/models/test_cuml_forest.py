"""Forests of cuML as our arrays, from the text that treelite writes; scikit-learn where there is no cuML."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.compute.forest import predict
from segmentd.models import cuml_child, cuml_forest, training
from segmentd.workers.pool import Reply

from . import fake_cuml

CHANCE = np.random.default_rng(5)
FEATURES = CHANCE.uniform(0, 9, (200, 4)).astype(np.float32)
LABELS = (1 + np.digitize(FEATURES[:, 0] + FEATURES[:, 1], (6, 12))).astype(np.uint8)
NAMES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def trained() -> training.TrainedForest:
    return training.train(training.Samples(FEATURES, LABELS), 3, NAMES, seed=3, trees=6)


def test_predictions_are_those_of_the_forest(trained: training.TrainedForest) -> None:
    forest = cuml_forest.forest_arrays(fake_cuml.dumped(trained.forest), 3)
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
        cuml_forest.forest_arrays({**fake_cuml.dumped(trained.forest), "average_tree_output": False}, 3)
    with pytest.raises(ValueError, match="not a forest of 2"):
        cuml_forest.forest_arrays(fake_cuml.dumped(trained.forest), 2)


def train(device: str) -> training.TrainedForest:
    return training.train(training.Samples(FEATURES, LABELS), 3, NAMES, seed=3, trees=6, device=device)


def predictions(found: training.TrainedForest) -> np.ndarray:
    return predict(found.forest, np.random.default_rng(1).uniform(0, 9, (4, 30, 40)).astype(np.float32))


def test_without_cuml_scikit_learn_trains_and_says_so(
    trained: training.TrainedForest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    other = train("cuda")
    assert other.note == "cuML is not installed (extra `cuml`); trained by scikit-learn on the CPU"
    assert other.device == "cpu"
    assert_array_equal(other.forest.threshold, trained.forest.threshold)
    assert other.library_versions == trained.library_versions
    assert train("auto").note == ""


class Here:
    """The process of cuML, in this one."""

    def __init__(self, *options: Any, **named: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def call(self, target: str, arguments: dict[str, Any], fds: list[int]) -> Reply:
        assert target == "segmentd.models.cuml_child:fit"
        return Reply(*cuml_child.fit(arguments, fds))


@pytest.fixture
def cuml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuml.install(tmp_path, monkeypatch)


@pytest.fixture
def here(cuml: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuml_forest, "WorkerPool", Here)


@pytest.mark.usefixtures("here")
def test_a_forest_of_cuml_becomes_a_model(trained: training.TrainedForest) -> None:
    found = train("cuda")
    assert found.note == ""
    assert found.device == "cuda:0"
    assert found.library_versions["cuml"] == fake_cuml.VERSION
    assert found.scores["out_of_bag_confusion"] == trained.scores["out_of_bag_confusion"]
    importances = (each.scores["feature_importance"] for each in (found, trained))
    assert next(importances) == pytest.approx(next(importances), abs=1e-5)
    assert_array_equal(predictions(found), predictions(trained))
    assert train("auto").device == "cuda:0"
    assert train("cpu").device == "cpu"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("memory", "cuML fails: std::bad_alloc: out_of_memory: CUDA error"),
        ("error", "cuML fails: cudaErrorInsufficientDriver"),
        ("no card", "cuML finds no card that can be used"),
    ],
)
def test_a_card_that_fails_leaves_it_to_scikit_learn(
    trained: training.TrainedForest, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    monkeypatch.setenv(fake_cuml.VARIABLE, fault)
    found = train("cuda")
    assert (found.device, found.note) == ("cpu", f"{said}; trained by scikit-learn on the CPU")
    assert "cuml" not in found.library_versions
    assert_array_equal(found.forest.threshold, trained.forest.threshold)
    # who leaves the choice to us need not hear that there is no card
    assert train("auto").note == ("" if fault == "no card" else found.note)


@pytest.mark.usefixtures("cuml")
def test_the_process_of_cuml_may_abort(
    trained: training.TrainedForest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fake_cuml.VARIABLE, "abort")
    found = train("cuda")
    assert "crashed (signal SIGABRT)" in found.note and found.note.endswith(
        "trained by scikit-learn on the CPU"
    )
    assert_array_equal(found.forest.threshold, trained.forest.threshold)


@pytest.mark.slow
@pytest.mark.usefixtures("cuml")
def test_the_process_of_cuml_may_train_or_hang(
    trained: training.TrainedForest, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = train("cuda")
    assert found.note == ""
    assert found.device == "cuda:0"
    assert_array_equal(predictions(found), predictions(trained))
    monkeypatch.setenv(fake_cuml.VARIABLE, "hang")
    monkeypatch.setattr(cuml_forest, "DEADLINE_SECONDS", 0.2)
    assert "not done after 0.2 seconds, given up" in train("auto").note
