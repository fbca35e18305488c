"""What a request of the Open Inference Protocol asks for, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from segmentd.oip import open_inference_pb2 as pb
from segmentd.records import PixelType, SegmentOptions
from segmentd.rpc import plane_call
from segmentd.rpc.convert import model_reference
from segmentd.rpc.deadline import Deadline
from segmentd.rpc.faults import bad_field
from segmentd.rpc.open_inference.regions import Part, Region
from segmentd.rpc.plane_call import Announced

IMAGE = "image"
LABELS, CONFIDENCE, SCORES = "labels", "confidence", "scores"
OUTPUTS = (LABELS, CONFIDENCE, SCORES)
DATATYPES = {
    "UINT8": PixelType.UINT8,
    "UINT16": PixelType.UINT16,
    "INT16": PixelType.INT16,
    "UINT32": PixelType.UINT32,
    "FP32": PixelType.FLOAT32,
}
_NAMES = {pixel_type: name for name, pixel_type in DATATYPES.items()}
_OPTIONS = ("min_confidence", "border", "tile", "postprocessing", "confidence")
# Triton's clients ask for a mark on the last answer of a stream with this.
FINAL_WANTED = "triton_enable_empty_final_response"
_REGION, _SIZE, _OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"

Parameters = Mapping[str, pb.InferParameter]
FindRegion = Callable[[str], Region]


@dataclass(frozen=True)
class Wanted:
    """An output that is wanted, and where it shall go; None is the answer itself."""

    name: str
    place: Part | None = None


@dataclass(frozen=True)
class Input:
    """The image of a request: bytes of the message, or a part of a region; `shape` as it was sent."""

    pixel_type: PixelType
    shape: tuple[int, ...]
    data: bytes | Part

    @property
    def datatype(self) -> str:
        """Its type, in the protocol's words."""
        return _NAMES[self.pixel_type]

    @property
    def size_bytes(self) -> int:
        """Bytes of its values."""
        return _size_bytes(self.pixel_type, self.shape)


def datatype(pixel_type: PixelType) -> str:
    """A pixel type in the protocol's words."""
    return _NAMES[pixel_type]


def reference(name: str, field: str) -> str:
    """The id or display name of a model; BAD_FIELD for none, or for a path."""
    if not name:
        raise bad_field(field, "must be the id or display name of a model")
    return model_reference(f"models/{name}", field)


def read_input(request: pb.ModelInferRequest, find: FindRegion) -> Input:
    """The input `image` of a request.

    Raises
    ------
    SegmentdError
        BAD_FIELD for an input that is none; what `find` raises for a region.
    """
    if len(request.inputs) != 1 or request.inputs[0].name != IMAGE:
        sent = ", ".join(f"'{tensor.name}'" for tensor in request.inputs) or "none"
        raise bad_field("inputs", f"must be one input '{IMAGE}'; sent were: {sent}")
    tensor = request.inputs[0]
    if tensor.datatype not in DATATYPES:
        raise bad_field("inputs.datatype", f"'{tensor.datatype}' must be one of {', '.join(DATATYPES)}")
    shape = tuple(tensor.shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise bad_field("inputs.shape", f"{list(shape)} must be [Y,X] or [C,Y,X], one plane and no batch")
    for axis, length in zip("YX", shape[-2:], strict=True):
        plane_call.check_range(f"inputs.shape, axis {axis}", length, 1, plane_call.MAX_EDGE_PX)
    if len(shape) == 3:
        plane_call.check_range("inputs.shape, axis C", shape[0], 1, plane_call.MAX_CHANNELS)
    pixel_type = DATATYPES[tensor.datatype]
    size = _size_bytes(pixel_type, shape)
    place = _place(tensor.parameters, "inputs.parameters", size, find)
    if place is not None:
        return Input(pixel_type, shape, place)
    if tensor.HasField("contents") or len(request.raw_input_contents) != 1:
        raise bad_field(
            "raw_input_contents", "must hold the values of the image as bytes, in one entry; not `contents`"
        )
    data = request.raw_input_contents[0]
    if len(data) != size:
        raise bad_field(
            "raw_input_contents", f"{len(data):,} bytes were sent; {_text(pixel_type, shape)} are {size:,}"
        )
    return Input(pixel_type, shape, data)


def read_outputs(
    request: pb.ModelInferRequest, known: Sequence[str], default: Sequence[str], find: FindRegion
) -> list[Wanted]:
    """The outputs of a request, in its order; BAD_FIELD for one that is not `known` or comes twice."""
    names = [output.name for output in request.outputs] or list(default)
    for name in names:
        if name not in known or names.count(name) > 1:
            raise bad_field("outputs", f"'{name}' must be one of {', '.join(known)}, each once")
    wanted = []
    for output in request.outputs:
        other = sorted({*output.parameters} - {_REGION, _SIZE, _OFFSET})
        if other:
            raise bad_field("outputs.parameters", f"'{other[0]}' is not offered; leave it out")
        wanted.append(Wanted(output.name, _place(output.parameters, "outputs.parameters", None, find)))
    return wanted or [Wanted(name) for name in names]


def announced(
    request: pb.ModelInferRequest, image: Input, wanted: Sequence[Wanted], client: str
) -> Announced:
    """The plane of a request, how it shall be segmented, for whom; BAD_FIELD for parameters that are none."""
    return Announced(
        reference(request.model_name, "model_name"),
        image.pixel_type,
        (1, *image.shape) if len(image.shape) == 2 else image.shape,  # type: ignore[arg-type]
        _options(request.parameters),
        Deadline(),  # callers end their calls by themselves
        client,
        with_scores=any(output.name == SCORES for output in wanted),
        field="model_name",
    )


def _options(parameters: Parameters) -> SegmentOptions:
    for name in parameters:
        if name not in (*_OPTIONS, FINAL_WANTED):
            raise bad_field("parameters", f"'{name}' is not known; known are {', '.join(_OPTIONS)}")
    options = SegmentOptions(
        border_px=_whole(parameters, "border", 0, plane_call.MAX_BORDER_PX),
        tile_px=_whole(parameters, "tile", plane_call.MIN_TILE_PX, plane_call.MAX_TILE_PX),
        min_confidence=_whole(parameters, "min_confidence", 0, 100) or 0,
        postprocessing=plane_call.check_postprocessing(
            "parameters.postprocessing", _text_of(parameters, "postprocessing", "")
        ),
        confidence=_text_of(parameters, "confidence", "map"),
    )
    if options.confidence not in ("map", "marginal"):
        raise bad_field("parameters.confidence", f"'{options.confidence}' must be map or marginal")
    plane_call.check_marginal("parameters.confidence", options, "postprocessing")
    return options


def _place(parameters: Parameters, field: str, size: int | None, find: FindRegion) -> Part | None:
    """The part of a region that parameters name; None if they name none.

    `size` is what a tensor takes, and the part must have it; None where that is not known yet.
    """
    if _REGION not in parameters:
        return None
    region = find(_text_of(parameters, _REGION, "", field))
    most = (1 << 63) - 1
    offset = _whole(parameters, _OFFSET, 0, most, field) or 0
    given = _whole(parameters, _SIZE, 0, most, field) or 0
    if size is not None and given != size:
        raise bad_field(f"{field}.{_SIZE}", f"is {given:,}, and shape and datatype make {size:,} bytes")
    return region.part(offset, given)


def _whole(parameters: Parameters, name: str, low: int, high: int, field: str = "parameters") -> int | None:
    value = _value(parameters, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_field(f"{field}.{name}", f"{value!r} must be a whole number")
    plane_call.check_range(f"{field}.{name}", value, low, high)
    return value


def _text_of(parameters: Parameters, name: str, default: str, field: str = "parameters") -> str:
    value = _value(parameters, name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise bad_field(f"{field}.{name}", f"{value!r} must be a text")
    return value


def _value(parameters: Parameters, name: str) -> bool | int | float | str | None:
    if name not in parameters:
        return None
    kind = parameters[name].WhichOneof("parameter_choice")
    return None if kind is None else getattr(parameters[name], kind)


def _size_bytes(pixel_type: PixelType, shape: tuple[int, ...]) -> int:
    return prod(shape) * np.dtype(pixel_type.value).itemsize


def _text(pixel_type: PixelType, shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} values {_NAMES[pixel_type]}"
