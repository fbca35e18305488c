"""What we use of cuML and treelite, against the installed wheels; a card only for the last test.

cuML's own wheel (7 MB) is enough for its signatures: its sources are read, and nothing of it is imported.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.ensemble import RandomForestClassifier

from segmentd.compute.forest import predict
from segmentd.engine.cuda_check import find_cards
from segmentd.models import cuml_child, cuml_forest, training

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


@pytest.fixture
def ensemble() -> Path:
    """The folder of the installed wheel with its forests."""
    found = importlib.util.find_spec("cuml")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the extra cuml, or its wheel alone (pip install --no-deps)")
    return Path(found.submodule_search_locations[0]) / "ensemble"


def our_calls() -> Iterator[tuple[str, int, set[str]]]:
    """What `cuml_child` calls on cuML and on the forest it makes: name, positional and named arguments."""
    for node in ast.walk(ast.parse(Path(cuml_child.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("cuml.", "made.")):
            yield ast.unparse(node.func), len(node.args), {str(each.arg) for each in node.keywords}


@pytest.mark.gpu_wheels
def test_the_forest_of_cuml_is_called_as_its_sources_say(ensemble: Path) -> None:
    source = (ensemble / "randomforestclassifier.py").read_text(encoding="utf-8")
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    (forest,) = (found for found in classes if found.name == "RandomForestClassifier")
    methods = {node.name: node.args for node in forest.body if isinstance(node, ast.FunctionDef)}
    compiled = (ensemble / "randomforest_common.pyx").read_text(encoding="utf-8")
    checked = []
    for name, positional, named in our_calls():
        checked.append(name)
        match name:
            case "cuml.ensemble.RandomForestClassifier":
                assert positional == 0
                assert named <= {each.arg for each in methods["__init__"].kwonlyargs}
            case "made.fit":
                assert [each.arg for each in methods["fit"].args[: 1 + positional]] == ["self", "X", "y"]
                assert not named
            case "made.as_treelite":
                assert re.search(r"^    def as_treelite\(self\):", compiled, re.MULTILINE)
            case "made.as_treelite().dump_as_json":  # that of treelite, tried above
                assert "return treelite.Model.deserialize_bytes" in compiled
            case _:
                pytest.fail(f"{name} is not checked")
    assert len(checked) == 4
    for attribute in ("oob_decision_function_", "feature_importances_"):
        assert f"self.{attribute} = " in compiled
    start = (ensemble.parent / "__init__.py").read_text(encoding="utf-8")
    assert re.search(r"from cuml\._version import .*__version__", start)
    assert "from cuml.ensemble.randomforestclassifier import RandomForestClassifier" in start


@pytest.mark.gpu
def test_a_forest_trained_on_a_card_predicts_as_cuml_does() -> None:
    if not find_cards().cards:
        pytest.skip("there is no card")
    cuml = pytest.importorskip("cuml", reason="needs the extra cuml")
    fitted = cuml_forest.fit(FEATURES, LABELS, 3, seed=1, trees=9)
    made = cuml.ensemble.RandomForestClassifier(
        n_estimators=9, max_depth=None, n_bins=cuml_child.BINS, random_state=1, n_streams=1
    ).fit(FEATURES, LABELS.astype(np.int32) - 1)
    found = predict(fitted.forest, FEATURES.T.reshape(5, 20, 15)).reshape(3, -1).T
    np.testing.assert_allclose(found, np.asarray(made.predict_proba(FEATURES)), atol=1e-6)
