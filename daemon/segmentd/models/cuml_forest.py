"""Training on a graphics card through cuML (extra `cuml`), in a process of its own.

cuML looks for splits among quantiles of each feature, scikit-learn among all values: forests differ, and so
do the digests of models. What a forest predicts does not depend on where it was trained. Whatever the driver
does to that process, the training goes on without the card. Never run on a card so far.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute.forest import ForestArrays
from segmentd.errors import SegmentdError
from segmentd.workers import WorkerPool, wire

NOT_INSTALLED = "cuML is not installed (extra `cuml`)"
DEVICE = "cuda:0"
# A driver that hangs is given up then; millions of pixels take minutes.
DEADLINE_SECONDS = 1800.0
TARGET = "segmentd.models.cuml_child:fit"


class CumlError(Exception):
    """cuML cannot train here; the message says why. `absent`: there is no cuML or no card at all."""

    def __init__(self, message: str, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


@dataclass(frozen=True)
class Fitted:
    """A forest, the out-of-bag probabilities of its samples (n, K), and the share of each feature (F,).

    `library_versions` are those of what trained it, beyond what trains every forest.
    """

    forest: ForestArrays
    votes: npt.NDArray[np.float64]
    importances: npt.NDArray[np.float64]
    library_versions: dict[str, str] = field(default_factory=dict)


def fit(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8], class_count: int, seed: int, trees: int
) -> Fitted:
    """Train a forest of fully grown trees on the first card. Blocks.

    Parameters
    ----------
    features : float32 array (n, F)
        Of labelled pixels.
    labels : uint8 array (n,)
        1..K, each of them at least once.
    class_count, seed, trees : int
        K; where chance begins; T.

    Raises
    ------
    CumlError
        There is no cuML, no card, or it fails there; also where its process crashes or does not answer.
    """
    if importlib.util.find_spec("cuml") is None:
        raise CumlError(NOT_INSTALLED, absent=True)
    described, memory = wire.pack_arrays([features, labels])
    arguments = {"classes": class_count, "seed": seed, "trees": trees, "arrays": described}
    # Without a limit: CUDA reserves far more addresses than it uses.
    pool = WorkerPool(1, 0, DEADLINE_SECONDS, advice="the driver or the card may be at fault")
    try:
        with pool:
            reply = pool.call(TARGET, arguments, [] if memory is None else [memory])
    except SegmentdError as error:
        raise CumlError(f"cuML fails: {error.message}") from error
    finally:
        if memory is not None:
            os.close(memory)
    if "fault" in reply.value:
        raise CumlError(str(reply.value["fault"]), bool(reply.value["absent"]))
    feature, threshold, left, right, value, roots, votes, importances = reply.arrays
    forest = ForestArrays(feature, threshold, left, right, value, roots, features.shape[1])
    return Fitted(forest, votes, importances, {"cuml": str(reply.value["version"])})


def forest_arrays(dumped: Mapping[str, Any], class_count: int) -> ForestArrays:
    """The forest that treelite wrote as JSON (`Model.dump_as_json`) as plain arrays.

    Inner nodes get the mean of their children's distributions, as the text has none; nothing predicts by it.

    Raises
    ------
    ValueError
        It is no forest of averaged class distributions.
    """
    if not dumped["average_tree_output"] or dumped["num_class"] != [class_count]:
        raise ValueError(f"not a forest of {class_count} averaged classes")
    number = np.float32 if dumped["threshold_type"] == "float32" else np.float64
    trees = [tree["nodes"] for tree in dumped["trees"]]
    starts = np.cumsum([0, *(len(nodes) for nodes in trees)])
    count = int(starts[-1])
    feature, left, right = (np.full(count, -1, np.int32) for _ in range(3))
    threshold = np.full(count, -2.0)
    value = np.zeros((count, class_count))
    for start, nodes in zip(starts, trees, strict=False):
        for node in nodes:
            place = start + node["node_id"]
            if "leaf_value" in node:
                value[place] = node["leaf_value"]
                continue
            feature[place] = node["split_feature_id"]
            threshold[place] = _highest_left(node, number)
            left[place], right[place] = start + node["left_child"], start + node["right_child"]
    forest = ForestArrays(
        feature, threshold, left, right, value, starts[:-1].astype(np.int32), dumped["num_feature"]
    )
    forest.check()
    for place in np.flatnonzero(feature >= 0)[::-1]:  # children lie behind their parents
        value[place] = (value[left[place]] + value[right[place]]) / 2
    return forest


def _highest_left(node: Mapping[str, Any], number: type[np.floating[Any]]) -> float:
    """The highest value that goes left; thresholds were rounded to shortest text, in their own precision."""
    threshold = number(node["threshold"])
    match node["comparison_op"]:
        case "<=":
            return float(threshold)
        case "<":
            return float(np.nextafter(threshold, number(-np.inf)))
    raise ValueError(f"a node that compares by {node['comparison_op']}")
