"""Packages that somebody might send to break out of the program, to eat its memory, or by mistake."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .. import tiny_networks as tiny

ENDS = ([1, 32, 48, 1], [1, 32, 48, 3])


def network(*nodes: onnx.NodeProto, **constants: Any) -> bytes:
    return tiny.serialize(nodes, *ENDS, {name: np.asarray(values) for name, values in constants.items()})


def changed(change: Any) -> bytes:
    """A good network after `change(model)`."""
    model = onnx.load_from_string(tiny.classifier())
    change(model)
    data: bytes = model.SerializeToString()
    return data


def outside(key: str, location: str) -> bytes:
    """A network with a tensor in another file."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        if key:
            tensor.external_data.add(key=key, value=location)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")

    return changed(change)


def resized(**fields: Any) -> bytes:
    """A network with a tensor whose shape or type is not that of its data."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        if "dims" in fields:
            del tensor.dims[:]
            tensor.dims.extend(fields["dims"])
        if "data_type" in fields:
            tensor.data_type = fields["data_type"]

    return changed(change)


def nested(depth: int) -> bytes:
    """Graphs within graphs."""
    graph = helper.make_graph([helper.make_node("Identity", ["c"], ["o"])], "g", [], [])
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=graph.__class__())
        graph = helper.make_graph([node], "g", [], [])
    return changed(lambda model: model.graph.node.append(graph.node[0]))


def with_function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(
        helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 13)])
    )


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, out = len(payload), bytearray()
    for value in ((number << 3) | 2, size):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out) + payload


def overlapping() -> bytes:
    """Two directory entries that name the same bytes."""
    data = bytearray(tiny.zipped({"model.json": b"x" * 99, "model.model": b"x" * 99}, zipfile.ZIP_STORED))
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, 0)
    return bytes(data)


def two_faced() -> bytes:
    """The local header of a member tells another size than the directory."""
    data = bytearray(tiny.czann())
    struct.pack_into("<I", data, 22, 5)
    return bytes(data)


def encrypted() -> bytes:
    data = bytearray(tiny.czann())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + place] |= 1
    return bytes(data)


def cased() -> bytes:
    data = json.dumps(tiny.metadata()).encode()
    return tiny.zipped({"model.json": data, "MODEL.JSON": data, "model.model": tiny.classifier()})


def package(name: str, **more: bytes) -> bytes:
    return tiny.zipped({"model.json": b"{}", "model.model": tiny.classifier(), name: b"x", **more})


def described(text: bytes) -> bytes:
    return tiny.zipped({"model.json": text, "model.model": tiny.classifier()})


def xml(text: str) -> bytes:
    return tiny.zipped({"a.xml": text.encode(), "a.model": tiny.classifier()})


ENTITIES = '<!DOCTYPE Model [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
IMAGE = helper.make_node("ImageDecoder", ["x"], ["y"])
DEEP_JSON = b'{"Type": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

# What it is: the package, and words of the refusal.
PACKAGES: dict[str, tuple[bytes, str]] = {
    # not a model at all
    "empty": (b"", "no kind of model file"),
    "pickle": (pickle.dumps({"forest": [1]}), "pickle"),
    "gzip": (gzip.compress(b"x"), "gzip"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "program text": (b"import os\nos.system('true')\n", "text"),
    "script": (b"#!/bin/sh\ntrue\n", "program"),
    "ELF": (b"\x7fELF" + bytes(60), "program"),
    "tar": (bytes(257) + b"ustar" + bytes(250), "tar"),
    "compiled for onnxruntime": (b"ORTM" + bytes(64), "onnxruntime"),
    "torch archive": (tiny.zipped({"archive/data.pkl": pickle.dumps(1)}), "pickles"),
    "keras archive": (tiny.zipped({"metadata.json": b"{}", "model.weights.h5": b"x"}), "Keras"),
    "skops archive": (tiny.zipped({"schema.json": b"{}"}), "skops"),
    "saved model": (tiny.zipped({"saved_model.pb": b"\x08\x01"}), "SavedModel"),
    "saved model inside": (tiny.czann(tiny.zipped({"saved_model.pb": b"x"})), "SavedModel"),
    "random forest of others": (tiny.czseg(FeatureExtractor="BasicFeatures25"), "forest"),
    # the archive
    "path upwards": (package("../../escaped"), "unsafe name"),
    "path upwards, backslash": (package("..\\..\\escaped"), "unsafe name"),
    "absolute path": (package("/etc/cron.d/x"), "unsafe name"),
    "drive": (package("C:\\x"), "unsafe name"),
    "two of a name": (cased(), "two members of one name"),
    "bomb": (package("zeros.bin", **{"big.bin": bytes(96 << 20)}), "inflates"),
    "too many members": (tiny.zipped({f"m{number}": b"" for number in range(300)}), "300 members"),
    "overlapping": (overlapping(), "overlapping"),
    "two-faced header": (two_faced(), "two different ways"),
    "encrypted": (encrypted(), "encrypted"),
    "cut off": (tiny.czann()[:-40], "not a zip"),
    # metadata
    "JSON too deep": (described(DEEP_JSON), "nested too deeply"),
    "JSON a little too deep": (described(b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}"), "nested too deeply"),
    "JSON key twice": (described(b'{"Type": "Regression", "Type": "x"}'), "names a key twice"),
    "JSON not a number": (described(b'{"Scaling": NaN}'), "no number"),
    "JSON too large": (described(b'{"a": "' + bytes(2 << 20) + b'"}'), "larger than"),
    "JSON of another kind": (described(b"[1, 2]"), "no JSON object"),
    "XML entities": (xml(ENTITIES + tiny.czseg_xml().partition("?>")[2]), "entities"),
    "XML outside": (xml('<!DOCTYPE Model SYSTEM "file:///etc/passwd"><Model/>'), "entities"),
    "XML in UTF-16": (
        tiny.zipped({"a.xml": tiny.czseg_xml().encode("utf-16"), "a.model": tiny.classifier()}),
        "UTF-8",
    ),
    "huge tile": (tiny.czann(InputShape=[1 << 30, 48, 1]), "InputShape"),
    "impossible overlap": (tiny.czann(MinOverlap=[32, 32]), "leaves nothing"),
    "negative overlap": (tiny.czann(MinOverlap=[-2, -2]), "MinOverlap"),
    "instances": (tiny.czann(Type="MultiClassInstanceSegmentation"), "instance segmentation"),
    "newer version": (tiny.czann(FormatVersion="9.0.0"), "FormatVersion"),
    # the network
    "data outside": (tiny.czann(outside("location", "../../etc/passwd")), "external data"),
    "data outside, without a place": (tiny.czann(outside("", "")), "external data"),
    "code of a device": (tiny.czann(network(helper.make_node("EPContext", ["x"], ["y"]))), "EPContext"),
    "own operator": (tiny.czann(network(helper.make_node("Run", ["x"], ["y"], domain="evil"))), "evil.Run"),
    "operator that decodes": (tiny.czann(network(IMAGE)), "ImageDecoder"),
    "random numbers": (
        tiny.czann(network(helper.make_node("RandomUniformLike", ["x"], ["y"]))),
        "RandomUniformLike",
    ),
    "functions": (tiny.czann(changed(with_function)), "functions"),
    "tensor larger than its data": (tiny.czann(resized(dims=[1 << 38])), "as many numbers"),
    "negative size": (tiny.czann(resized(dims=[-1])), "impossible shape"),
    "sizes that overflow": (tiny.czann(resized(dims=[1 << 32, 1 << 32])), "as many numbers"),
    "tensor of text": (tiny.czann(resized(data_type=TensorProto.STRING)), "not numbers"),
    "graphs too deep": (tiny.czann(nested(12)), "nested more than"),
    "graph twice": (tiny.czann(tiny.classifier() + field(7, b"")), "given twice"),
    "unknown field": (tiny.czann(tiny.classifier() + field(99, b"x")), "field 99"),
    "training": (tiny.czann(tiny.classifier() + field(20, b"")), "field 20"),
    "number without an end": (tiny.czann(b"\x08" + b"\xff" * 12), "more than 64 bits"),
    "field beyond the end": (tiny.czann(b"\x08\x08\x3a\xff\xff\xff\xff\x0f"), "cut off"),
    "two inputs": (
        tiny.czann(changed(lambda model: model.graph.input.append(model.graph.input[0]))),
        "2 inputs",
    ),
    "input of text": (
        tiny.czann(changed(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8))),
        "float32",
    ),
    "volumes of a network for planes": (
        tiny.czann(InputShape=[8, 32, 48, 1], OutputShape=[8, 32, 48, 3], MinOverlap=None),
        "network takes [32, 48, 1]",
    ),
}


def hungry(size: int) -> bytes:
    """A small network that asks for `size` bytes of memory when it runs."""
    shape = numpy_helper.from_array(np.array([size // 4], np.int64), "shape")
    nodes = [
        helper.make_node(
            "ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("v", 1, [1], [1.0])
        ),
        helper.make_node("ReduceSum", ["ones", "axes"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["x", "sum"], ["m"]),
        helper.make_node("Concat", ["m", "m", "m"], ["y"], axis=3),
    ]
    axes = np.array([0], np.int64)
    return tiny.serialize(nodes, *ENDS, {"shape": numpy_helper.to_array(shape), "axes": axes})


def endless() -> bytes:
    """A small network that counts for ever."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "one"], ["w"])],
        "b",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["", "yes", "zero"], ["count"], body=body),
        helper.make_node("Mul", ["x", "count"], ["m"]),
        helper.make_node("Concat", ["m", "m", "m"], ["y"], axis=3),
    ]
    constants = {"yes": np.array(True), "zero": np.float32(0.0), "one": np.float32(1.0)}
    return tiny.serialize(nodes, *ENDS, {name: np.asarray(value) for name, value in constants.items()})
