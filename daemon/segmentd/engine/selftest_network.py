"""A small network that is made in a moment, to try whether this machine runs networks and where.

It is written field by field as the messages of an ONNX file (onnx.proto): its package is for tests only.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from segmentd.models import network_model
from segmentd.models.description import SEMANTIC, Description
from segmentd.models.network_model import NetworkModel
from segmentd.records import PixelType

TILE_PX = 128
BORDER_PX = 4
FILTERS, FILTER_PX = 8, 5
CLASSES = ("dark", "edge", "bright")
_IR_VERSION, _OPSET = 8, 13
_FLOAT = 1


def test_network() -> NetworkModel:
    """Filters of 5 x 5 pixels, for planes of one channel in 16 bits."""
    description = Description(
        name="self test network",
        text="",
        task=SEMANTIC,
        source="self test",
        input_shape=(TILE_PX, TILE_PX, 1),
        output_shape=(TILE_PX, TILE_PX, len(CLASSES)),
        border_px=BORDER_PX,
        class_names=CLASSES,
        pixel_types=(PixelType.UINT16,),
        channels_last=False,
        softmax=True,
    )
    return network_model.build(description, _onnx(), "self test network")


def _onnx() -> bytes:
    """Filters, what is positive of them, and mixtures of that for each class."""
    chance = np.random.default_rng(3)
    filters = chance.normal(0, 1, (FILTERS, 1, FILTER_PX, FILTER_PX)).astype(np.float32)
    mixtures = chance.normal(0, 1, (len(CLASSES), FILTERS, 1, 1)).astype(np.float32)
    offsets = chance.normal(0, 1, len(CLASSES)).astype(np.float32)
    pads = _bytes(1, b"pads") + b"".join(_number(8, FILTER_PX // 2) for _ in range(4)) + _number(20, 7)
    nodes = [
        _node("Conv", ["x", "filters"], "filtered", _bytes(5, pads)),
        _node("Relu", ["filtered"], "positive"),
        _node("Conv", ["positive", "mixtures", "offsets"], "y"),
    ]
    named = {"filters": filters, "mixtures": mixtures, "offsets": offsets}
    graph = [
        *(_bytes(1, node) for node in nodes),
        _bytes(2, b"g"),
        *(_bytes(5, _tensor(name, values)) for name, values in named.items()),
        _bytes(11, _value("x", 1)),
        _bytes(12, _value("y", len(CLASSES))),
    ]
    return _number(1, _IR_VERSION) + _bytes(7, b"".join(graph)) + _bytes(8, _number(2, _OPSET))


def _node(operator: str, taken: Iterable[str], made: str, attributes: bytes = b"") -> bytes:
    inputs = b"".join(_bytes(1, name.encode()) for name in taken)
    return inputs + _bytes(2, made.encode()) + _bytes(4, operator.encode()) + attributes


def _tensor(name: str, values: npt.NDArray[np.float32]) -> bytes:
    shape = b"".join(_number(1, size) for size in values.shape)
    return shape + _number(2, _FLOAT) + _bytes(8, name.encode()) + _bytes(9, values.tobytes())


def _value(name: str, channels: int) -> bytes:
    """An input or output: as many tiles as one likes, channels, rows, columns."""
    axes = [_bytes(2, b"n"), *(_number(1, size) for size in (channels, TILE_PX, TILE_PX))]
    shape = b"".join(_bytes(1, axis) for axis in axes)
    kind = _bytes(1, _number(1, _FLOAT) + _bytes(2, shape))
    return _bytes(1, name.encode()) + _bytes(2, kind)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
