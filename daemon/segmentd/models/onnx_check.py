"""Walks an ONNX file before any runtime sees it: only known operators, all data inside, nothing oversized."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from segmentd.models.onnx_schema import ELEMENTS, FLOAT, OPERATORS, SCHEMA
from segmentd.models.protobuf import Message, Reader

MAX_BYTES = 1 << 30
MAX_NODES = 20_000
MAX_TENSORS = 50_000
MAX_GRAPH_DEPTH = 8
MAX_RANK = 16
OPSETS = range(7, 28)
_STANDARD_DOMAINS = ("", "ai.onnx")

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class OnnxNetwork:
    """What a checked file says of itself: input and output shape with the batch axis, None where free."""

    input_shape: Shape
    output_shape: Shape
    opset: int
    node_count: int


class _Limits:
    """Counts what is there in all graphs together."""

    def __init__(self) -> None:
        self.nodes = 0
        self.tensors = 0

    def add(self, nodes: int, tensors: int) -> None:
        self.nodes += nodes
        self.tensors += tensors
        if self.nodes > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES:,} nodes")
        if self.tensors > MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")


def check(data: bytes) -> OnnxNetwork:
    """Check the bytes of an ONNX file.

    Raises
    ------
    ValueError
        With the rule that is broken.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    model = Reader(SCHEMA).read(memoryview(data), "ModelProto")
    if model.get("functions"):
        raise ValueError("it defines functions of its own; inline them (onnx.inliner) and export it again")
    opset = _opset(model)
    graph = model.get("graph")
    if not graph or not graph.get("node"):
        raise ValueError("it has no graph; it is no ONNX network")
    limits = _Limits()
    _check_graph(graph, limits, 0)
    constants = {tensor.get("name") for tensor in graph.get("initializer", ())}
    inputs = [value for value in graph.get("input", ()) if value.get("name") not in constants]
    outputs = graph.get("output", [])
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"it has {len(inputs)} inputs and {len(outputs)} outputs; a network for segmentation has one each"
        )
    return OnnxNetwork(_shape(inputs[0], "input"), _shape(outputs[0], "output"), opset, limits.nodes)


def _opset(model: Message) -> int:
    versions = []
    for entry in model.get("opset_import", ()):
        domain, version = entry.get("domain", ""), entry.get("version", 0)
        if domain in _STANDARD_DOMAINS:
            versions.append(version)
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise ValueError(
            f"its opset is {versions[0] if versions else 'missing'}; export it with one of "
            f"{OPSETS.start} to {OPSETS.stop - 1}"
        )
    return int(versions[0])


def _check_graph(graph: Message, limits: _Limits, depth: int) -> None:
    if depth > MAX_GRAPH_DEPTH:
        raise ValueError(f"graphs are nested more than {MAX_GRAPH_DEPTH} deep")
    nodes, tensors = graph.get("node", []), graph.get("initializer", [])
    limits.add(len(nodes), len(tensors))
    for tensor in tensors:
        _check_tensor(tensor)
    for node in nodes:
        _check_operator(node)
        for attribute in node.get("attribute", ()):
            own = list(_own(attribute, "t", "tensors"))
            limits.add(0, len(own))
            for tensor in own:
                _check_tensor(tensor)
            for inner in _own(attribute, "g", "graphs"):
                _check_graph(inner, limits, depth + 1)


def _own(attribute: Message, single: str, several: str) -> Iterator[Message]:
    if single in attribute:
        yield attribute[single]
    yield from attribute.get(several, ())


def _check_operator(node: Message) -> None:
    domain, operator = node.get("domain", ""), node.get("op_type", "")
    if operator == "EPContext":
        raise ValueError("it holds code compiled for one device (EPContext); export the network itself")
    if domain not in _STANDARD_DOMAINS:
        raise ValueError(
            f"it uses the operator {domain}.{operator}; only standard ONNX operators are run, export it "
            "without extensions"
        )
    if operator not in OPERATORS:
        raise ValueError(f"it uses the operator {operator!r}, which is not among those that are run")


def _check_tensor(tensor: Message) -> None:
    name = tensor.get("name", "")
    if tensor.get("external_data") or tensor.get("data_location", 0) != 0:
        raise ValueError(
            f"tensor {name!r} lies in another file (external data); save the network in one file"
        )
    dims, element = tensor.get("dims", []), ELEMENTS.get(tensor.get("data_type", 0))
    if element is None:
        raise ValueError(f"tensor {name!r} holds elements of type {tensor.get('data_type', 0)}, not numbers")
    if len(dims) > MAX_RANK or any(not 0 <= size < 1 << 40 for size in dims):
        raise ValueError(f"tensor {name!r} has the impossible shape {dims[:MAX_RANK]}")
    size, typed = element
    count = math.prod(dims)
    stored = {key: tensor[key] for key in _DATA_FIELDS if tensor.get(key)}
    if "raw_data" in tensor:
        fits = len(tensor["raw_data"]) == count * size and not stored
    else:
        fits = tensor.get(typed, 0) == count and set(stored) <= {typed}
    if not fits:
        raise ValueError(f"tensor {name!r} of shape {dims} does not hold as many numbers as it says")


_DATA_FIELDS = tuple(sorted({typed for _, typed in ELEMENTS.values()}))


def _shape(value: Message, what: str) -> Shape:
    tensor = value.get("type", {}).get("tensor_type", {})
    if tensor.get("elem_type") != FLOAT:
        raise ValueError(f"its {what} is not of type float32")
    if "shape" not in tensor:
        raise ValueError(f"its {what} has no shape; export it with one")
    sizes = []
    for axis in tensor["shape"].get("dim", ()):
        size = axis.get("dim_value")
        if size is not None and not 0 <= size < 1 << 31:
            raise ValueError(f"its {what} has an axis of size {size}")
        sizes.append(size or None)
    return tuple(sizes)
