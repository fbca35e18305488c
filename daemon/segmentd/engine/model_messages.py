"""Models on their way to a device's process: plain JSON values and arrays, nothing that runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute.deep_sets import deep_sets
from segmentd.compute.feature_plan import STEP, FeaturePlan
from segmentd.compute.network import NetworkSpec
from segmentd.compute.packets import PacketForest
from segmentd.compute.packets.layout import RECORD
from segmentd.engine.array_models import DeviceFeatures, DeviceNetwork
from segmentd.engine.device import DeviceModel
from segmentd.engine.predictor import Predictor
from segmentd.models import bundle
from segmentd.records import ModelCard

Arrays = Sequence[npt.NDArray[Any]]


def packed(model: DeviceModel) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """What `unpacked` makes the model of again."""
    card = bundle.manifest_of(model.card)
    if isinstance(model, Predictor):
        plan, forest = model.plan, model.forest
        message: dict[str, Any] = {
            "plan": [plan.channel_count, plan.plane_count, plan.reach_px, plan.sobel_images],
            "forest": [forest.class_count, forest.plane_count],
        }
        records = plan.steps.view(np.uint8), plan.weights, plan.plane_of_feature, forest.nodes.view(np.uint8)
        arrays: list[npt.NDArray[Any]] = [*records, forest.roots, forest.leaf_trees, forest.leaf_values]
        return {"kind": "forest", "card": card, **message}, arrays
    if isinstance(model, DeviceNetwork):
        spec = asdict(model.spec)
        return {"kind": "network", "card": card, "spec": spec}, [np.frombuffer(model.data, np.uint8)]
    if isinstance(model, DeviceFeatures):
        weights = [values for layer in model.layers for values in layer]
        projection = [] if model.projection is None else [model.projection]
        message = {"set": model.feature_set.name, "projected": model.projection is not None}
        return {"kind": "features", "card": card, **message}, weights + projection
    raise TypeError(f"{type(model).__name__} cannot be sent to a device")


def unpacked(message: dict[str, Any], arrays: Arrays) -> DeviceModel:
    """The model that `packed` was given."""
    return _KINDS[message["kind"]](bundle.card_of(message["card"]), message, arrays)


def _forest(card: ModelCard, message: dict[str, Any], arrays: Arrays) -> DeviceModel:
    steps, weights, planes, nodes, roots, trees, values = arrays
    channels, plane_count, reach, sobel_images = message["plan"]
    plan = FeaturePlan(channels, planes, plane_count, reach, steps.view(STEP), weights, sobel_images)
    classes, forest_planes = message["forest"]
    forest = PacketForest(nodes.view(RECORD), roots, classes, forest_planes, trees, values)
    return Predictor(card, plan, forest)


def _network(card: ModelCard, message: dict[str, Any], arrays: Arrays) -> DeviceModel:
    return DeviceNetwork(card, arrays[0].tobytes(), NetworkSpec(**message["spec"]))


def _features(card: ModelCard, message: dict[str, Any], arrays: Arrays) -> DeviceModel:
    feature_set = next(one for one in deep_sets() if one.name == message["set"])
    projection = arrays[-1] if message["projected"] else None
    weights = arrays[: 2 * len(feature_set.layers)]
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    return DeviceFeatures(card, feature_set, layers, projection)


_KINDS: dict[str, Callable[[ModelCard, dict[str, Any], Arrays], DeviceModel]] = {
    "forest": _forest,
    "network": _network,
    "features": _features,
}
