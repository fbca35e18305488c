"""A TensorFlow SavedModel to one graph that holds its values, without TensorFlow.

Only what the output is computed from is taken: nodes, functions, and the variables, which become constants.
How a SavedModel saves and restores itself (operators that read and write files), what it does when it is
loaded, its assets and its Python objects are left behind. `tf_check` then looks at every node that is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from segmentd.compute.tensorflow_graph import OUTPUT, VALUE_PREFIX
from segmentd.models.protobuf import Message, Reader
from segmentd.models.tf_check import IGNORED, SHAPES, attributes, callee, check_operator
from segmentd.models.tf_checkpoint import Checkpoint
from segmentd.models.tf_schema import CALLS, CONSTANT, FLOAT, IDENTITY, PLACEHOLDER, SCHEMA, VARIABLE

FILE = "saved_model.pb"
SERVING = "serving_default"
_INITIALIZER = "__saved_model_init_op"

Nodes = Mapping[str, Message]


def to_graph(members: Mapping[str, bytes]) -> bytes:
    """The graph of a SavedModel.

    Parameters
    ----------
    members : mapping
        The files of its folder, by their paths in it.

    Returns
    -------
    bytes
        A `GraphDef` to be checked by `tf_check.check`.

    Raises
    ------
    ValueError
        Saying what cannot be used.
    """
    reader = Reader(SCHEMA)
    saved = reader.read(memoryview(members[FILE]), "SavedModel")
    graphs = saved.get("meta_graphs", [])
    if len(graphs) != 1 or not graphs[0].get("graph_def", {}).get("node"):
        raise ValueError(f"it has {len(graphs)} graphs, or an empty one; it must have one")
    return _Taken(reader, graphs[0]).graph(Checkpoint(members))


class _Taken:
    """What of a SavedModel is taken."""

    def __init__(self, reader: Reader, meta: Message) -> None:
        self._reader = reader
        self._nodes = _by_name(meta["graph_def"]["node"])
        library = meta["graph_def"].get("library", {}).get("function", ())
        self._functions = {entry.get("signature", {}).get("name", ""): entry for entry in library}
        self._restore: str = meta.get("saver_def", {}).get("restore_op_name", "")
        taken, made = _ends(meta)
        self._input, self._output = _node_of(taken.get("name", "")), made.get("name", "")
        self._shapes = taken.get("tensor_shape", {}), made.get("tensor_shape", {})
        self._out: list[bytes] = []
        self._written: dict[str, bytes] = {}

    def graph(self, checkpoint: Checkpoint) -> bytes:
        """All nodes and functions that the output needs, and the values of the variables."""
        nodes = _needed(self._nodes, [self._output], "the graph")
        keys = self._keys() if any(node["op"] == VARIABLE for node in nodes) else {}
        for node in nodes:
            name = node["name"]
            if node["op"] == PLACEHOLDER and name != self._input:
                raise ValueError(f"its output needs a second input, {name!r}")
            if name.startswith((VALUE_PREFIX, OUTPUT)):
                raise ValueError(f"it has a node with the reserved name {name!r}")
            self._out.append(_field(1, self._node(node)))
            if node["op"] == VARIABLE:
                if name not in keys:
                    raise ValueError(f"its checkpoint has no value of the variable {name!r}")
                self._out.append(_field(1, _value(name, *checkpoint.read(keys[name]))))
        self._out.append(_field(1, _output(self._output, self._shapes[1])))
        library = b"".join(_field(1, function) for function in self._written.values())
        return b"".join(self._out) + _field(2, library)

    def _node(self, node: Message) -> bytes:
        """A node without what it says of how to run it; the functions that it calls are taken, too."""
        name, operator = node["name"], node["op"]
        attrs = attributes(self._reader, node)
        if operator in CALLS:
            self._take_function(callee(node, attrs))
        elif operator not in (PLACEHOLDER, VARIABLE):
            check_operator(operator)
        out = _text(1, name) + _text(2, operator)
        out += b"".join(_text(3, given) for given in _data_inputs(node))
        for raw, key in zip(node.get("attr", ()), attrs, strict=True):
            if key in IGNORED or key.startswith("_") or key in _REPLACED.get(operator, ()):
                continue
            out += _field(5, bytes(raw))
        if operator == VARIABLE:
            out += _attribute("shared_name", _field(2, name.encode()))
        if operator == PLACEHOLDER:
            out += _attribute("shape", _field(7, _shape(self._shapes[0])))
        return out

    def _take_function(self, name: str) -> None:
        if name in self._written:
            return
        function = self._functions.get(name)
        if function is None:
            raise ValueError(f"it calls the function {name!r}, which it does not have")
        self._written[name] = b""  # one that calls itself is found by the check
        signature = function["signature"]
        arguments = {argument.get("name", "") for argument in signature.get("input_arg", ())}
        ends = [(entry.get("key", ""), entry.get("value", "")) for entry in function.get("ret", ())]
        nodes = _needed(_by_name(function.get("node_def", ())), [end for _, end in ends], name, arguments)
        described = _text(1, name) + _flag(17, bool(signature.get("is_stateful")))
        for number, key in ((2, "input_arg"), (3, "output_arg")):
            for argument in signature.get(key, ()):
                described += _field(
                    number, _text(1, argument.get("name", "")) + _number(3, argument.get("type", 0))
                )
        out = _field(1, described)
        out += b"".join(_field(3, self._node(node)) for node in nodes)
        out += b"".join(_field(4, _text(1, key) + _text(2, value)) for key, value in ends)
        self._written[name] = out

    def _keys(self) -> dict[str, str]:
        """Where in the checkpoint each variable lies: what restoring would assign to it, read and not run."""
        call = self._nodes.get(self._restore, {})
        function = self._functions.get(self._called(call), {})
        nodes = _by_name(function.get("node_def", ()))
        arguments = function.get("signature", {}).get("input_arg", ())
        variables = dict(
            zip((argument.get("name", "") for argument in arguments), _data_inputs(call), strict=False)
        )
        keys = {}
        for node in nodes.values():
            if node["op"] != "AssignVariableOp":
                continue
            target, source = (*_data_inputs(node), "", "")[:2]
            while (origin := nodes.get(_node_of(source), {})).get("op") == IDENTITY:
                source = (*_data_inputs(origin), "")[0]
            names, number = self._restored(nodes, origin), source.rpartition(":")[2]
            if target in variables and number.isdecimal() and int(number) < len(names):
                keys[_node_of(variables[target])] = names[int(number)]
        return keys

    def _called(self, node: Message) -> str:
        if node.get("op") not in CALLS:
            raise ValueError(
                "it is of a kind before TensorFlow 2; convert it with tf2onnx and import the .onnx file"
            )
        return callee(node, attributes(self._reader, node))

    def _restored(self, nodes: Nodes, node: Message) -> list[str]:
        """Keys of the tensors that a `RestoreV2` gives."""
        if node.get("op") != "RestoreV2":
            return []
        listed = nodes.get(_node_of((*_data_inputs(node), "", "")[1]), {})
        tensor = attributes(self._reader, listed).get("value", {}).get("tensor", {})
        return [bytes(key).decode("utf-8", "replace") for key in tensor.get("string_val", ())]


# What a node of its own must say; of the input, the signature knows the shape.
_REPLACED = {VARIABLE: ("shared_name", "container"), PLACEHOLDER: ("shape",)}


def _ends(meta: Message) -> tuple[Message, Message]:
    """The input and the output tensor: name, type and shape."""
    signatures = {entry.get("key", ""): entry.get("value", {}) for entry in meta.get("signature_def", ())}
    signatures.pop(_INITIALIZER, None)
    chosen = signatures.get(SERVING) or (next(iter(signatures.values())) if len(signatures) == 1 else {})
    inputs, outputs = (
        [entry.get("value", {}) for entry in chosen.get(key, ())] for key in ("inputs", "outputs")
    )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            f"it has {len(inputs)} inputs and {len(outputs)} outputs to serve; it must have one each"
        )
    if outputs[0].get("dtype", 0) != FLOAT:
        raise ValueError("its output is not of type float32")
    return inputs[0], outputs[0]


def _by_name(nodes: Iterable[Message]) -> dict[str, Message]:
    found: dict[str, Message] = {}
    for node in nodes:
        name = node.setdefault("name", "")
        node.setdefault("op", "")
        if name in found:
            raise ValueError(f"its graph has two nodes called {name!r}")
        found[name] = node
    return found


def _needed(nodes: Nodes, ends: list[str], where: str, given: Iterable[str] = ()) -> list[Message]:
    """The nodes that some tensors are computed from, in the order of the file."""
    given, wanted, seen = set(given), [_node_of(end) for end in ends], set()
    while wanted:
        name = wanted.pop()
        if name in seen or name in given:
            continue
        if name not in nodes:
            raise ValueError(f"{where} has no node {name!r}, which its output needs")
        seen.add(name)
        wanted += [_node_of(tensor) for tensor in _data_inputs(nodes[name])]
    return [node for name, node in nodes.items() if name in seen]


def _data_inputs(node: Message) -> list[str]:
    """Inputs of a node, without what only has to run before it (`^`): nothing here changes anything."""
    return [tensor for tensor in node.get("input", ()) if not tensor.startswith("^")]


def _node_of(tensor: str) -> str:
    return tensor.partition(":")[0]


def _value(variable: str, dtype: int, value: npt.NDArray[np.generic]) -> bytes:
    """The constant that a variable begins with."""
    shape = b"".join(_field(2, _number(1, size)) for size in value.shape)
    tensor = _number(1, dtype) + _field(2, shape) + _field(4, value.tobytes())
    out = _text(1, VALUE_PREFIX + variable) + _text(2, CONSTANT)
    return out + _attribute("dtype", _number(6, dtype)) + _attribute("value", _field(8, tensor))


def _output(tensor: str, shape: Message) -> bytes:
    """The node that gives the scores and knows their shape."""
    out = _text(1, OUTPUT) + _text(2, IDENTITY) + _text(3, tensor)
    return out + _attribute("T", _number(6, FLOAT)) + _attribute(SHAPES, _field(1, _field(7, _shape(shape))))


def _shape(shape: Message) -> bytes:
    if shape.get("unknown_rank"):
        return _flag(3, True)
    return b"".join(_field(2, _number(1, dim.get("size", 0))) for dim in shape.get("dim", ()))


def _attribute(key: str, value: bytes) -> bytes:
    return _field(5, _text(1, key) + _field(2, value))


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _flag(number: int, value: bool) -> bytes:
    return _number(number, 1) if value else b""


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & (1 << 64) - 1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
