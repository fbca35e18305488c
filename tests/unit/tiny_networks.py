"""Networks whose answer is known in closed form, and the packages that they come in."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
LEVELS = (0.35, 0.65)
STEEPNESS = 40.0


def serialize(
    nodes: Sequence[onnx.NodeProto],
    taken: Sequence[Any],
    made: Sequence[Any],
    constants: Mapping[str, npt.NDArray[Any]] | None = None,
    **more: Any,
) -> bytes:
    """An ONNX file with one input `x` and one output `y`; `more` are further fields of the model."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(taken))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(made))],
        [numpy_helper.from_array(values, name) for name, values in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], **more)
    model.ir_version = 8
    data: bytes = model.SerializeToString()
    return data


def classifier(
    shape: tuple[Any, Any] = (32, 48),
    weights: Sequence[float] = (1.0,),
    levels: Sequence[float] = LEVELS,
    batch: Any = "n",
    channels_first: bool = False,
    softmax: bool = True,
) -> bytes:
    """Label = 1 + how many of `levels` the mean of 3 x 3 pixels exceeds, channels added up by `weights`.

    Edge pixels of a tile are repeated, so tiles need a border of one pixel.
    """
    steps = np.arange(len(levels) + 1, dtype=np.float32)
    mean = np.stack([np.full((3, 3), weight / 9, np.float32) for weight in weights])[None]
    offsets = -STEEPNESS * np.concatenate([[0.0], np.cumsum(levels)])
    constants = {
        "mean": mean,
        "slope": (STEEPNESS * steps).reshape(-1, 1, 1, 1),
        "offset": offsets.astype(np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    }
    first, last = ("x", "logits") if channels_first else ("planes", "last")
    nodes = [
        helper.make_node("Pad", [first, "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "mean"], ["smooth"]),
        helper.make_node("Conv", ["smooth", "slope", "offset"], ["logits"]),
    ]
    if not channels_first:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Transpose", ["logits"], ["last"], perm=[0, 2, 3, 1]))
    axis = 1 if channels_first else 3
    nodes.append(helper.make_node(*(("Softmax", [last], ["y"]) if softmax else ("Identity", [last], ["y"]))))
    if softmax:
        nodes[-1].attribute.append(helper.make_attribute("axis", axis))
    count = len(levels) + 1
    ends = (
        ([len(weights), *shape], [count, *shape])
        if channels_first
        else ([*shape, len(weights)], [*shape, count])
    )
    return serialize(nodes, [batch, *ends[0]], [batch, *ends[1]], constants)


def smooth(pixels: npt.NDArray[Any], top: float) -> npt.NDArray[np.float64]:
    """What `classifier` looks at: means of 3 x 3 pixels of a plane over `top`, edge pixels repeated."""
    padded = np.pad(pixels / top, 1, mode="edge")
    height, width = pixels.shape
    return sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9.0


def expected(pixels: npt.NDArray[Any], top: float, levels: Sequence[float] = LEVELS) -> npt.NDArray[np.uint8]:
    """The labels that `classifier` gives a plane of one channel."""
    return (1 + sum((smooth(pixels, top) > level).astype(np.uint8) for level in levels)).astype(np.uint8)


def half(shape: tuple[Any, Any] = (32, 32)) -> bytes:
    """A regression: 0.5 x + 0.1."""
    nodes = [helper.make_node("Mul", ["x", "a"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    constants = {"a": np.float32(0.5).reshape(1), "b": np.float32(0.1).reshape(1)}
    return serialize(nodes, ["n", *shape, 1], ["n", *shape, 1], constants)


def metadata(**changes: Any) -> dict[str, Any]:
    """`model.json` for `classifier()`; None takes a key out."""
    values = {
        "Id": "0d5a4f0e-6f5c-4c2e-9d2b-000000000001",
        "Type": "SingleClassSemanticSegmentation",
        "InputShape": [32, 48, 1],
        "OutputShape": [32, 48, 3],
        "MinOverlap": [8, 8],
        "Classes": ["low", "middle", "high"],
        "ModelName": "Levels",
    } | changes
    return {key: value for key, value in values.items() if value is not None}


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def czann(network: bytes | None = None, **changes: Any) -> bytes:
    """A `.czann` file; `changes` as for `metadata`."""
    data = json.dumps(metadata(**changes)).encode()
    return zipped({"model.json": data, "model.model": classifier() if network is None else network})


def czseg_xml(**changes: str) -> str:
    """The XML of a `.czseg` file for `classifier()`; each change replaces the text of an element."""
    parts = {
        "ModelName": "Levels",
        "FeatureExtractor": "DeepNeuralNetwork",
        "Channels": '<Item PixelType="Gray8 Gray16" />',
        "TrainingClasses": "".join(
            f'<Item colR="{value}0" colG="1" colB="255" LabelValue="{value}" Name="c{value}" />'
            for value in (1, 2, 3)
        ),
        "BorderSize": "4",
        "TotalTileHeight": "32",
        "TotalTileWidth": "48",
    } | changes
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in parts.items())
    return f'\ufeff<?xml version="1.0" encoding="utf-8"?>\r\n<Model Version="3.2.0">{inner}</Model>'


def czseg(network: bytes | None = None, **changes: str) -> bytes:
    """A `.czseg` file; `changes` as for `czseg_xml`."""
    guid = "0d5a4f0e-6f5c-4c2e-9d2b-000000000002"
    return zipped(
        {
            f"modelid={guid}": b"",
            f"{guid}.xml": czseg_xml(**changes).encode(),
            f"{guid}.model": classifier() if network is None else network,
        }
    )
