"""The card's side of `segmentd.models.cuml_forest`: what runs in the process that touches the driver."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.models.cuml_forest import forest_arrays
from segmentd.workers import wire

# Finer than cuML's default of 128, for classes that lie close together.
BINS = 256
MOST_TEXT = 300

Answer = tuple[dict[str, Any], list[npt.NDArray[Any]]]


def fit(arguments: dict[str, Any], fds: list[int]) -> Answer:
    """Train on the first card; answers with the forest's arrays, votes and importances, or what failed.

    `absent` tells that there is nothing to train with, as opposed to something that fails.
    """
    features, labels = wire.map_arrays(arguments["arrays"], fds[0] if fds else None)
    try:
        if not importlib.import_module("cupy").cuda.is_available():
            return {"fault": "cuML finds no card that can be used", "absent": True}, []
        cuml = importlib.import_module("cuml")
        made = cuml.ensemble.RandomForestClassifier(
            n_estimators=arguments["trees"],
            max_depth=None,
            n_bins=BINS,
            random_state=arguments["seed"],
            n_streams=1,  # else the same seed makes other forests
            oob_score=True,
            output_type="numpy",
        )
        made.fit(features, labels.astype(np.int32) - 1)
        forest = forest_arrays(json.loads(made.as_treelite().dump_as_json()), arguments["classes"])
        votes = np.asarray(made.oob_decision_function_, np.float64)
        importances = np.asarray(made.feature_importances_, np.float64)
    except Exception as error:  # the driver's, CUDA's, RMM's and cuML's have no common class
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return {"fault": f"cuML fails: {first[:MOST_TEXT]}", "absent": False}, []
    nodes = forest.feature, forest.threshold, forest.left, forest.right, forest.value, forest.roots
    return {"version": str(cuml.__version__)}, [*nodes, votes, importances]
