"""The arrays of a forest's model as members of the container, in numpy's `.npy` form; no pickles."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute.deep_sets import DeepFeatureSet
from segmentd.compute.features import feature_sets
from segmentd.compute.forest import ForestArrays
from segmentd.records import ModelCard

Projection = npt.NDArray[np.float32] | None

_PROJECTION = "features/projection.npy"
_ARRAYS = ("feature", "threshold", "left", "right", "value", "roots")


def write(forest: ForestArrays, projection: Projection) -> dict[str, bytes]:
    """Name and content of each member."""
    arrays: dict[str, npt.NDArray[Any]] = {f"forest/{name}.npy": getattr(forest, name) for name in _ARRAYS}
    if projection is not None:
        arrays[_PROJECTION] = projection
    members = {}
    for name, array in arrays.items():
        out = io.BytesIO()
        np.lib.format.write_array(out, array, allow_pickle=False)
        members[name] = out.getvalue()
    return members


def read_forest(members: Mapping[str, bytes], card: ModelCard) -> ForestArrays:
    """The forest, checked; ValueError or KeyError where it is none, or not the card's."""
    types = {"threshold": np.float64, "value": np.float64}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in _ARRAYS:
        array = _array(f"forest/{name}.npy", members[f"forest/{name}.npy"])
        if array.dtype != types.get(name, np.int32) or array.ndim != (2 if name == "value" else 1):
            raise ValueError(f"forest/{name}.npy is {array.dtype} with {array.ndim} axes")
        arrays[name] = np.ascontiguousarray(array)
    planes = card.channel_count * len(feature_sets()[card.feature_set])
    forest = ForestArrays(**arrays, feature_count=planes)
    forest.check()
    if forest.class_count != len(card.classes):
        raise ValueError(f"the forest has {forest.class_count} classes, the card {len(card.classes)}")
    return forest


def read_projection(members: Mapping[str, bytes], card: ModelCard) -> Projection:
    """What the features are projected with, None for nothing; ValueError where the card says otherwise."""
    projection = _array(_PROJECTION, members[_PROJECTION]) if _PROJECTION in members else None
    check_projection(projection, card)
    return projection


def check_projection(projection: npt.NDArray[Any] | None, card: ModelCard) -> None:
    """ValueError unless projection and checksum of weights are what the features need, which may be none."""
    feature_set = feature_sets()[card.feature_set]
    checksum = "[0-9a-f]{64}" if isinstance(feature_set, DeepFeatureSet) else ""
    if not re.fullmatch(checksum, card.weights_sha256):
        raise ValueError(
            "model.json: weights_sha256 must be the checksum of what deep features are computed with"
        )
    wanted = None
    if isinstance(feature_set, DeepFeatureSet) and feature_set.projected_to is not None:
        wanted = (feature_set.projected_to, feature_set.layers[-1].outputs)
    found = None if projection is None else projection.shape
    if found != wanted:
        raise ValueError(f"{_PROJECTION} has the shape {found}, {card.feature_set} needs {wanted}")
    if projection is not None and (projection.dtype != np.float32 or not np.isfinite(projection).all()):
        raise ValueError(f"{_PROJECTION} must hold finite numbers of 32 bits")


def _array(name: str, data: bytes) -> npt.NDArray[Any]:
    """An array from `.npy` bytes whose declared size is the size that is there."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is not in npy format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name} does not hold what its header says")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)
