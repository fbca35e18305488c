"""Walks a TensorFlow graph before TensorFlow sees it: only known operators, one input, nothing oversized.

The graphs are those that `tf_saved_model` writes: without anything that the output does not need, and with
the values of variables as constants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from segmentd.compute.tensorflow_graph import OUTPUT
from segmentd.models.protobuf import Message, Reader
from segmentd.models.tf_checkpoint import shape_of
from segmentd.models.tf_schema import (
    CALLS,
    CONSTANT,
    ELEMENTS,
    FLOAT,
    OPERATORS,
    PLACEHOLDER,
    RESOURCE,
    SCHEMA,
    VARIABLE,
)

MAX_BYTES = 1 << 30
MAX_NODES = 20_000
MAX_CONSTANT_BYTES = 1 << 30
MAX_CALL_DEPTH = 16
SHAPES = "_output_shapes"
# What a graph says of how it wants to be run, and not of what it computes.
IGNORED = ("config", "config_proto", "executor_type", "debug_name")

Attributes = dict[str, Message]
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class GraphNetwork:
    """What a checked graph says of itself: shapes with the batch axis, None where free."""

    input_shape: Shape
    output_shape: Shape


def check(data: bytes) -> GraphNetwork:
    """Check the bytes of a graph.

    Raises
    ------
    ValueError
        With the rule that is broken.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"its graph has {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    reader = Reader(SCHEMA)
    graph = reader.read(memoryview(data), "GraphDef")
    checker = _Checker(reader)
    nodes = graph.get("node", [])
    checker.nodes(nodes, inside=False)
    functions = checker.functions(graph.get("library", {}))
    _count_calls(checker, nodes, functions)
    named = {node["name"]: node for node in nodes}
    inputs = [node for node in nodes if node["op"] == PLACEHOLDER]
    if len(inputs) != 1 or OUTPUT not in named:
        raise ValueError(
            f"its graph has {len(inputs)} inputs; a network for segmentd has one, and one output"
        )
    taken, made = attributes(reader, inputs[0]), attributes(reader, named[OUTPUT])
    if taken.get("dtype", {}).get("type") != FLOAT or made.get("T", {}).get("type") != FLOAT:
        raise ValueError("its input and output are not both of type float32")
    shapes = made.get(SHAPES, {}).get("list", {}).get("shape", [{}])
    return GraphNetwork(
        free_shape(taken.get("shape", {}).get("shape", {}), "input"), free_shape(shapes[0], "output")
    )


def attributes(reader: Reader, node: Message) -> Attributes:
    """The attributes of a node by name."""
    found: Attributes = {}
    for raw in node.get("attr", ()):
        entry = reader.read(raw, "AttrEntry")
        key = entry.get("key", "")
        if key in found:
            raise ValueError(f"node {node.get('name', '')!r} has the attribute {key!r} twice")
        found[key] = entry.get("value", {})
    return found


def callee(node: Message, attrs: Attributes) -> str:
    """The function that a node calls."""
    name: str = attrs.get("f", {}).get("func", {}).get("name", "")
    if not name:
        raise ValueError(f"node {node.get('name', '')!r} calls no function")
    return name


def free_shape(message: Message, what: str) -> Shape:
    """A shape, None for axes that may have any size."""
    if message.get("unknown_rank") or not message.get("dim"):
        raise ValueError(f"its {what} has no shape; export it with one")
    sizes = [dim.get("size", 0) for dim in message["dim"]]
    if any(not -1 <= size < 1 << 31 for size in sizes):
        raise ValueError(f"its {what} has the impossible shape {sizes}")
    return tuple(size if size > 0 else None for size in sizes)


def check_operator(operator: str) -> None:
    """ValueError where an operator is not run."""
    if operator not in OPERATORS:
        raise ValueError(
            f"it uses the TensorFlow operator {operator!r}, which is not among those that are run; convert "
            "it with tf2onnx and import the .onnx file"
        )


class _Checker:
    """Checks nodes one by one and counts what they hold together."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._constant_bytes = 0
        self.calls: dict[int, str] = {}

    def nodes(self, nodes: Iterable[Message], inside: bool) -> None:
        names: set[str] = set()
        for node in nodes:
            name = node.setdefault("name", "")
            node.setdefault("op", "")
            if not name or name in names:
                raise ValueError(f"its graph has two nodes called {name!r}, or one without a name")
            names.add(name)
            self._node(node, inside)

    def functions(self, library: Message) -> Mapping[str, list[Message]]:
        """The nodes of each function."""
        if library.get("gradient") or library.get("registered_gradients"):
            raise ValueError("its graph holds gradients, which nothing needs")
        found: dict[str, list[Message]] = {}
        for function in library.get("function", ()):
            signature, nodes = function.get("signature", {}), function.get("node_def", [])
            name = signature.get("name", "")
            if not name or name in found:
                raise ValueError(f"its graph has two functions called {name!r}, or one without a name")
            if function.get("attr") or function.get("arg_attr") or function.get("resource_arg_unique_id"):
                raise ValueError(f"function {name!r} has attributes, which nothing needs")
            for argument in (*signature.get("input_arg", ()), *signature.get("output_arg", ())):
                if argument.get("type", 0) not in (*ELEMENTS, RESOURCE):
                    raise ValueError(f"function {name!r} takes or gives what are no numbers")
            self.nodes(nodes, inside=True)
            found[name] = nodes
        return found

    def _node(self, node: Message, inside: bool) -> None:
        name, operator = node["name"], node["op"]
        attrs = attributes(self.reader, node)
        if node.get("device") or any(key in IGNORED or _hidden(key, name) for key in attrs):
            raise ValueError(f"node {name!r} says how it wants to be run, which is not for it to say")
        if operator in CALLS:
            self.calls[id(node)] = callee(node, attrs)
        elif operator not in (PLACEHOLDER, VARIABLE) or inside:
            check_operator(operator)
        for key, value in attrs.items():
            if "func" in value and (operator not in CALLS or key != "f"):
                raise ValueError(f"node {name!r} names a function where none belongs")
            if "tensor" in value:
                if operator != CONSTANT:
                    raise ValueError(f"node {name!r} holds a tensor where none belongs")
                self._tensor(value["tensor"], name)
        if operator == VARIABLE and bytes(attrs.get("shared_name", {}).get("s", b"")) != name.encode():
            raise ValueError(f"variable {name!r} is shared under another name")

    def _tensor(self, tensor: Message, name: str) -> None:
        dtype, shape = tensor.get("dtype", 0), shape_of(tensor.get("tensor_shape", {}), name)
        if dtype not in ELEMENTS or tensor.get("string_val"):
            raise ValueError(f"constant {name!r} holds elements of type {dtype}, not numbers")
        kind, typed = ELEMENTS[dtype]
        size, count = np.dtype(kind).itemsize, math.prod(shape)
        self._constant_bytes += count * size
        if self._constant_bytes > MAX_CONSTANT_BYTES:
            raise ValueError(f"its constants have more than {MAX_CONSTANT_BYTES:,} bytes")
        content, listed = tensor.get("tensor_content"), tensor.get(typed, 0)
        stored = {field for _, field in ELEMENTS.values() if tensor.get(field)}
        # Where fewer are listed, the last one stands for the rest.
        fits = (len(content) == count * size and not stored) if content else listed <= count
        if not fits or not stored <= {typed}:
            raise ValueError(f"constant {name!r} of shape {list(shape)} does not hold what it says")


def _hidden(key: str, node: str) -> bool:
    return key.startswith("_") and (key, node) != (SHAPES, OUTPUT)


def _count_calls(checker: _Checker, nodes: list[Message], functions: Mapping[str, list[Message]]) -> None:
    """Bound the size of the graph with all calls written out, and refuse functions that call themselves."""
    sizes: dict[str, int] = {}

    def size(nodes: list[Message], depth: int) -> int:
        if depth > MAX_CALL_DEPTH:
            raise ValueError(f"its functions call each other more than {MAX_CALL_DEPTH} deep, or themselves")
        total = len(nodes)
        for called in (checker.calls[id(node)] for node in nodes if id(node) in checker.calls):
            if called not in functions:
                raise ValueError(f"it calls the function {called!r}, which it does not have")
            if called not in sizes:
                sizes[called] = size(functions[called], depth + 1)
            total += sizes[called]
        if total > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES:,} nodes")
        return total

    size(nodes, 0)
