"""Weights of VGG19 from a file that Keras wrote: found, checked, read as plain arrays. No code is run.

Three forms are read: `.weights.h5` of Keras 3, and the older HDF5 forms, weights alone (as in the published
files) or a whole model. Only the layers that a feature set needs are read.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segmentd.compute import tensorflow_device
from segmentd.compute.deep_sets import VGG19, Convolution, DeepFeatureSet, Floats
from segmentd.errors import Reason, SegmentdError

if TYPE_CHECKING:
    import h5py

# What Keras calls them when it is asked to fetch them.
CACHED_NAMES = (
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "vgg19_weights_tf_dim_ordering_tf_kernels.h5",
)
_TO_DO = (
    "name a file of them ([models] vgg19_weights in the configuration, --vgg19-weights on the command line), "
    'or let Keras fetch them once with: python -c "import keras; keras.applications.VGG19(include_top=False)"'
)
_NUMBERED = re.compile(r"conv2d(?:_(\d+))?")


@dataclass(frozen=True)
class VggWeights:
    """Kernel and bias of the layers of a feature set, and the SHA-256 of these numbers.

    The checksum is over the numbers, so that it is the same in whatever form a file holds them.
    """

    layers: tuple[tuple[Floats, Floats], ...]
    sha256: str


def load(feature_set: DeepFeatureSet, named: Path | None) -> VggWeights:
    """Read the weights that a feature set needs, from the file that is named or from Keras' cache.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA; MODEL_UNUSABLE where there are no weights, saying what to do, or the file is not one.
    """
    tensorflow_device.require_extra()
    path = named if named is not None else _cached(feature_set)
    if not path.is_file():
        raise _unusable(f"{path}: there is no such file of VGG19 weights; {_TO_DO}")
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            layers = tuple(_layer(file, layer) for layer in feature_set.layers)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        what = str(error.args[0]) if error.args else type(error).__name__
        raise _unusable(f"{path}: is no file of VGG19 weights that Keras wrote: {what}; {_TO_DO}") from error
    return VggWeights(layers, _checksum(layers))


def check(weights: VggWeights, expected: str, model: str) -> None:
    """MODEL_UNUSABLE where the weights are not those that a model was trained with."""
    if weights.sha256 != expected:
        raise _unusable(
            f"model '{model}' was trained with other VGG19 weights (checksum {expected[:12]}, these have "
            f"{weights.sha256[:12]}); name the file that it was trained with, or train it again with these"
        )


def _unusable(message: str) -> SegmentdError:
    return SegmentdError(Reason.MODEL_UNUSABLE, message, field="vgg19_weights")


def _cached(feature_set: DeepFeatureSet) -> Path:
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
    for name in CACHED_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise _unusable(f"{feature_set.name} needs weights of VGG19, and {folder} holds none; {_TO_DO}")


def _layer(file: h5py.File, layer: Convolution) -> tuple[Floats, Floats]:
    group = _group(file, layer)
    if group is None:
        raise ValueError(f"it lacks the layer {layer.name}")
    arrays = list(_arrays(group))
    kernels = [array for array in arrays if array.ndim == 4]
    biases = [array for array in arrays if array.ndim == 1]
    shapes = [array.shape for array in (*kernels, *biases)]
    if shapes != [(3, 3, layer.inputs, layer.outputs), (layer.outputs,)]:
        raise ValueError(f"layer {layer.name} has arrays of shapes {shapes}, which are not those of VGG19")
    return _read(kernels[0], layer), _read(biases[0], layer)


def _group(file: h5py.File, layer: Convolution) -> h5py.Group | None:
    """Where a layer's arrays are, in any of the forms."""
    for root in (file, _child(file, "model_weights")):
        found = _child(root, layer.name)
        if found is not None:
            return found
    kept = _child(file, "layers")
    for name in kept or ():
        found = _child(_child(kept, name), "vars")
        # Older files do not tell names; layers are counted then.
        number = _NUMBERED.fullmatch(name)
        counted = VGG19[int(number[1] or 0)].name if number and int(number[1] or 0) < len(VGG19) else ""
        if found is not None and found.attrs.get("name", counted) == layer.name:
            return found
    return None


def _child(group: h5py.Group | None, name: str) -> h5py.Group | None:
    """A group in a group; links that lead elsewhere are not followed."""
    import h5py

    if group is None or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    found = group[name]
    return found if isinstance(found, h5py.Group) else None


def _arrays(group: h5py.Group, depth: int = 0) -> Iterator[h5py.Dataset]:
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or depth > 3:
            raise ValueError(f"{group.name} leads elsewhere")
        found = group[name]
        if isinstance(found, h5py.Dataset):
            yield found
        elif isinstance(found, h5py.Group):
            yield from _arrays(found, depth + 1)


def _read(array: h5py.Dataset, layer: Convolution) -> Floats:
    if array.external or array.is_virtual or array.dtype.kind != "f":
        raise ValueError(f"layer {layer.name} does not hold plain numbers")
    values = np.ascontiguousarray(array[()], np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"layer {layer.name} holds values that are not numbers")
    return values


def _checksum(layers: tuple[tuple[Floats, Floats], ...]) -> str:
    digest = hashlib.sha256()
    for arrays in layers:
        for array in arrays:
            digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()
