"""TensorFlow SavedModels whose answer is known, as TensorFlow 2 writes them, made without it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import tiny_networks as tiny

FLOAT, INT32, STRING, RESOURCE = 1, 3, 7, 20
SLOPE = np.array([0.0, 40.0, 80.0], np.float32).reshape(1, 1, 1, 3)
OFFSET = np.array([0.0, -14.0, -40.0], np.float32)
INPUT, CALL, INNER, RESTORE = (
    "serving_default_image",
    "StatefulPartitionedCall",
    "__inference_call",
    "__restore",
)


def expected(pixels: npt.NDArray[Any], top: float) -> npt.NDArray[np.uint8]:
    """The labels of `saved_model()`: 1 + how many of the levels 0.35 and 0.65 a pixel over `top` exceeds."""
    grey = pixels / top
    return (1 + (grey > 0.35).astype(np.uint8) + (grey > 0.65)).astype(np.uint8)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def field(number: int, data: bytes | str | int) -> bytes:
    if isinstance(data, int):
        return varint(number << 3) + varint(data)
    raw = data.encode() if isinstance(data, str) else data
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def shape(sizes: Sequence[int]) -> bytes:
    return b"".join(field(2, field(1, size)) for size in sizes)


def tensor(dtype: int, sizes: Sequence[int], content: bytes = b"", strings: Sequence[str] = ()) -> bytes:
    out = field(1, dtype) + field(2, shape(sizes)) + (field(4, content) if content else b"")
    return out + b"".join(field(8, text) for text in strings)


def kind(dtype: int) -> bytes:
    """The value of an attribute that is a type."""
    return field(6, dtype)


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    out = field(1, name) + field(2, op) + b"".join(field(3, given) for given in inputs)
    return out + b"".join(field(5, field(1, key) + field(2, value)) for key, value in attributes.items())


def function(
    name: str, arguments: Mapping[str, int], nodes: Sequence[bytes], result: tuple[str, str, int]
) -> bytes:
    signature = field(1, name)
    signature += b"".join(field(2, field(1, key) + field(3, dtype)) for key, dtype in arguments.items())
    signature += field(3, field(1, result[0]) + field(3, result[2])) + field(17, 1)
    out = field(1, signature) + b"".join(field(3, one) for one in nodes)
    return out + field(4, field(1, result[0]) + field(2, result[1]))


def call(name: str, called: str, *inputs: str) -> bytes:
    kinds = field(1, field(6, FLOAT) + field(6, RESOURCE) * 2)
    return node(name, CALL, *inputs, f=field(10, field(1, called)), Tin=kinds, Tout=field(1, field(6, FLOAT)))


INNER_NODES = (
    node("Conv2D/ReadVariableOp", "ReadVariableOp", "slope", dtype=kind(FLOAT)),
    node(
        *("Conv2D", "Conv2D", "image", "Conv2D/ReadVariableOp:value:0"),
        T=kind(FLOAT),
        strides=field(1, field(3, 1) * 4),
        padding=field(2, "SAME"),
    ),
    node("add/ReadVariableOp", "ReadVariableOp", "offset", dtype=kind(FLOAT)),
    node("add", "AddV2", "Conv2D:output:0", "add/ReadVariableOp:value:0", T=kind(FLOAT)),
    node("Softmax", "Softmax", "add:z:0", T=kind(FLOAT)),
    node("Identity", "Identity", "Softmax:softmax:0", "^NoOp", T=kind(FLOAT)),
    node("NoOp", "NoOp", "^Conv2D/ReadVariableOp"),
)


def inner(*nodes: bytes, result: str = "Identity:output:0") -> bytes:
    """The function that computes."""
    arguments = {"image": FLOAT, "slope": RESOURCE, "offset": RESOURCE}
    return function(INNER, arguments, nodes or INNER_NODES, ("identity", result, FLOAT))


def restore(keys: Sequence[str] = ("w/.VALUE", "b/.VALUE")) -> bytes:
    """The function that would read the checkpoint."""
    return function(
        RESTORE,
        {"file_prefix": STRING, "assign_w": RESOURCE, "assign_b": RESOURCE},
        [
            node("names", "Const", dtype=kind(STRING), value=field(8, tensor(STRING, [2], strings=keys))),
            node("RestoreV2", "RestoreV2", "file_prefix", "names:output:0", "names:output:0"),
            node("Identity", "Identity", "RestoreV2:tensors:0", T=kind(FLOAT)),
            node("Assign", "AssignVariableOp", "assign_w", "Identity:output:0", dtype=kind(FLOAT)),
            node("Assign_1", "AssignVariableOp", "assign_b", "RestoreV2:tensors:1", dtype=kind(FLOAT)),
        ],
        ("done", "file_prefix", STRING),
    )


TOP = (
    node(
        "w", "VarHandleOp", dtype=kind(FLOAT), shape=field(7, shape([1, 1, 1, 3])), shared_name=field(2, "x")
    ),
    node("b", "VarHandleOp", dtype=kind(FLOAT), shape=field(7, shape([3])), shared_name=field(2, "x")),
    node(INPUT, "Placeholder", dtype=kind(FLOAT), shape=field(7, field(3, 1))),
    call(CALL, INNER, INPUT, "w", "b"),
    node("saver_filename", "Placeholder", dtype=kind(STRING)),
    node("save", "SaveV2", "saver_filename", "w"),
    node("restore", CALL, "saver_filename", "w", "b", f=field(10, field(1, RESTORE))),
)


def end(name: str, channels: int) -> bytes:
    sizes = shape([-1, 32, 48, channels])
    return field(1, "t") + field(2, field(1, name) + field(2, FLOAT) + field(3, sizes))


def checkpoint(variables: Mapping[str, npt.NDArray[Any]]) -> dict[str, bytes]:
    """The files of some variables."""
    data, entries = b"", {"": field(1, 1)}
    for key, value in sorted(variables.items()):
        place = field(4, len(data)) + field(5, value.nbytes)
        entries[key] = field(1, FLOAT) + field(2, shape(value.shape)) + place
        data += value.tobytes()
    block = b""
    for key, entry in entries.items():
        block += varint(0) + varint(len(key)) + varint(len(entry)) + key.encode() + entry
    block += struct.pack("<II", 0, 1)
    handle = varint(0) + varint(len(block))
    index = varint(0) + varint(1) + varint(len(handle)) + b"z" + handle + struct.pack("<II", 0, 1)
    footer = varint(0) + varint(0) + varint(len(block) + 5) + varint(len(index))
    table = block + bytes(5) + index + bytes(5) + footer.ljust(40, b"\0")
    return {
        "variables/variables.index": table + struct.pack("<Q", 0xDB4775248B80FB57),
        "variables/variables.data-00000-of-00001": data,
    }


VALUES = {"w/.VALUE": SLOPE, "b/.VALUE": OFFSET}


def files(
    top: Sequence[bytes] = TOP,
    functions: Sequence[bytes] = (),
    values: Mapping[str, npt.NDArray[Any]] = VALUES,
    more: bytes = b"",
) -> dict[str, bytes]:
    """The files of a SavedModel; `more` are further fields of its graph."""
    library = b"".join(field(1, one) for one in functions or (inner(), restore()))
    graph = b"".join(field(1, one) for one in top) + field(2, library) + more
    signature = field(1, end(f"{INPUT}:0", 1)) + field(2, end(f"{CALL}:0", 3))
    meta = field(2, graph) + field(3, field(3, "restore") + field(7, 2))
    meta += field(5, field(1, "serving_default") + field(2, signature))
    meta += field(5, field(1, "__saved_model_init_op"))
    return {"saved_model.pb": field(1, 1) + field(2, meta), "assets/": b"", **checkpoint(values)}


def saved_model(*arguments: Any, **changes: Any) -> bytes:
    """The archive that lies in a package; arguments as for `files`."""
    return tiny.zipped(files(*arguments, **changes))
