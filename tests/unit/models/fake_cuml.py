"""A stand-in for cuML: scikit-learn's numbers through treelite's form, and the ways in which a driver fails.

`FAKE_CUML` is how: `no card`, `memory`, `error`, `abort` or `hang`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.ensemble import RandomForestClassifier as SklearnForest

from segmentd.compute.forest import ForestArrays
from segmentd.models.training import forest_arrays

VARIABLE = "FAKE_CUML"
VERSION = "26.10"
_CUPY = f"""
import os
import types
cuda = types.SimpleNamespace(is_available=lambda: os.environ.get("{VARIABLE}") != "no card")
"""
_CUML = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.unit.models.fake_cuml import VERSION as __version__, ensemble
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process and those that it starts find the stand-ins."""
    for name, text in (("cupy", _CUPY), ("cuml", _CUML)):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text)
        # Set first, so that it is removed afterwards, too, where a test imported it.
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(VARIABLE, raising=False)


def dumped(forest: ForestArrays) -> dict[str, Any]:
    """A forest as treelite writes it."""
    ends = [*forest.roots[1:], len(forest.feature)]
    trees: list[dict[str, Any]] = [{"nodes": []} for _ in forest.roots]
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


class RandomForestClassifier:
    """What we use of cuML's."""

    def __init__(self, *, n_estimators: int, random_state: int, **options: Any) -> None:
        assert options["max_depth"] is None and options["n_streams"] == 1
        assert options["oob_score"] and options["output_type"] == "numpy"
        self._forest = SklearnForest(n_estimators, random_state=random_state, oob_score=True)

    def fit(self, features: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> None:
        fault = os.environ.get(VARIABLE)
        if fault == "abort":
            os.abort()
        if fault == "hang":
            time.sleep(3600)
        if fault == "memory":
            raise MemoryError("std::bad_alloc: out_of_memory: CUDA error")
        if fault == "error":
            raise RuntimeError("cudaErrorInsufficientDriver\nand more")
        assert labels.min() == 0 and labels.dtype == np.int32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of samples without a vote; cuML warns of them, too
            self._forest.fit(features, labels)
        self.oob_decision_function_ = self._forest.oob_decision_function_
        self.feature_importances_ = self._forest.feature_importances_.astype(np.float32)

    def as_treelite(self) -> Any:
        text = json.dumps(dumped(forest_arrays(self._forest)))
        return SimpleNamespace(dump_as_json=lambda: text)


ensemble = SimpleNamespace(RandomForestClassifier=RandomForestClassifier)
