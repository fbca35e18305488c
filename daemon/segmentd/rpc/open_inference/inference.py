"""One inference: the plane of a request through the engine, its outputs into the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.errors import Reason, SegmentdError
from segmentd.models import versions
from segmentd.models.registry import Registry
from segmentd.oip import open_inference_pb2 as pb
from segmentd.rpc.host_paths import without_folders
from segmentd.rpc.open_inference import tensors
from segmentd.rpc.open_inference.regions import Part
from segmentd.rpc.open_inference.tensors import CONFIDENCE, LABELS, SCORES, FindRegion, Input, Wanted
from segmentd.rpc.plane_call import Announced, PlaneCall, PlaneCalls

ECHO = "echo"
ECHO_VERSION = "1"
# Clients of this protocol take messages of up to 2 GiB; this is what one call may hold in memory.
MAX_ANSWER_BYTES = 512 << 20
_ROOM_FOR_FIELDS = 1 << 20
LARGEST_MESSAGE_BYTES = MAX_ANSWER_BYTES + _ROOM_FOR_FIELDS

Array = npt.NDArray[np.generic]


async def segment(
    planes: PlaneCalls, request: pb.ModelInferRequest, find: FindRegion, client: str
) -> pb.ModelInferResponse:
    """Segment the plane of a client's request."""
    wanted = tensors.read_outputs(request, tensors.OUTPUTS, (LABELS, CONFIDENCE), find)
    image = tensors.read_input(request, find)
    plane = tensors.announced(request, image, wanted, client)
    async with planes.segmenting(plane, lambda: _pixels(plane, image)) as call:
        version = await asyncio.to_thread(versions.current_number, call.lease.path)
        check_version(call.card.id, request.model_version, version)
        answer = pb.ModelInferResponse(model_name=call.card.id, model_version=str(version), id=request.id)
        _check_room(wanted, plane, call)
        labels, confidence = np.zeros((2, *plane.shape[1:]), np.uint8)
        async with aclosing(call.tiles()) as tiles:
            async for tile in tiles:
                window = tile.region.window
                labels[window], confidence[window] = tile.labels, tile.confidence
        outputs: dict[str, Array] = {LABELS: labels, CONFIDENCE: confidence}
        if call.scores is not None:
            outputs[SCORES] = call.scores
        telemetry.count("submitted_planes")
        _tell(answer, call)
        await _fill(answer, wanted, outputs)
        return answer


async def echo(request: pb.ModelInferRequest, find: FindRegion) -> pb.ModelInferResponse:
    """Give the image back as it came, for measuring."""
    check_version(ECHO, request.model_version, int(ECHO_VERSION))
    wanted = tensors.read_outputs(request, (tensors.IMAGE,), (tensors.IMAGE,), find)[0]
    image = tensors.read_input(request, find)
    answer = pb.ModelInferResponse(model_name=ECHO, model_version=ECHO_VERSION, id=request.id)
    if isinstance(image.data, Part) and wanted.place is not None:
        _check_fits(wanted, image.size_bytes)
        await asyncio.to_thread(image.data.copy_to, wanted.place.first(image.size_bytes))
        _add(answer, wanted, image.datatype, image.shape, b"")
        return answer
    values = image.data if isinstance(image.data, bytes) else (await _bytes_of(image)).tobytes()
    if wanted.place is not None:
        _check_fits(wanted, len(values))
        await asyncio.to_thread(wanted.place.write, np.frombuffer(values, np.uint8))
        values = b""
    _add(answer, wanted, image.datatype, image.shape, values)
    return answer


def check_version(model: str, asked: str, current: int) -> None:
    """MODEL_NOT_FOUND where a request names another version than the current one."""
    if asked and asked != str(current):
        raise SegmentdError(
            Reason.MODEL_NOT_FOUND,
            f"model '{model}' is at version {current}, and older ones are not served; leave the version out",
            resource=model,
        )


async def is_ready(registry: Registry, name: str, version: str) -> bool:
    """Whether a model is loaded; False too where there is none."""
    try:
        entry = await registry.find(tensors.reference(name, "name"))
        check_version(entry.id, version, await asyncio.to_thread(versions.current_number, entry.path))
    except SegmentdError as error:
        if error.reason is Reason.MODEL_NOT_FOUND:
            return False
        raise
    return entry.state == "ACTIVE"


async def _pixels(plane: Announced, image: Input) -> Array:
    return plane.values(await _bytes_of(image))


async def _bytes_of(image: Input) -> npt.NDArray[np.uint8]:
    if isinstance(image.data, bytes):
        return np.frombuffer(image.data, np.uint8)
    data = np.empty(image.size_bytes, np.uint8)
    await asyncio.to_thread(image.data.read, data)
    return data


def _check_room(wanted: list[Wanted], plane: Announced, call: PlaneCall) -> None:
    """Refuse outputs that do not fit, before the plane is computed."""
    pixels = plane.shape[1] * plane.shape[2]
    sizes = {LABELS: pixels, CONFIDENCE: pixels, SCORES: plane.score_bytes(len(call.card.classes))}
    for output in wanted:
        _check_fits(output, sizes[output.name])
    size = sum(sizes[output.name] for output in wanted if output.place is None)
    if size > MAX_ANSWER_BYTES:
        raise SegmentdError(
            Reason.PLANE_TOO_LARGE,
            f"the answer would have {size:,} bytes, at most {MAX_ANSWER_BYTES:,} are sent; ask for fewer "
            "outputs, use shared memory, or send the plane in parts",
        )


def _check_fits(output: Wanted, size: int) -> None:
    if output.place is not None and output.place.size_bytes < size:
        raise SegmentdError(
            Reason.REGION_TOO_SMALL,
            f"output '{output.name}' has {size:,} bytes, and {output.place.size_bytes:,} of shared memory "
            f"region '{output.place.region.name}' were given for it",
            resource=output.place.region.name,
        )


def _tell(answer: pb.ModelInferResponse, call: PlaneCall) -> None:
    """What is told of a plane beside its outputs."""
    tally = call.tally
    texts: Mapping[str, str] = {
        "device": tally.device,
        "device_reason": without_folders(tally.device_reason),
        "model_digest": call.card.digest,
    }
    for name, text in texts.items():
        answer.parameters[name].string_param = text
    answer.parameters["mean_confidence"].double_param = tally.mean_confidence
    answer.parameters["masked_pixels"].int64_param = tally.masked_pixels
    answer.parameters["compute_ms"].double_param = 1000 * tally.compute_seconds


async def _fill(answer: pb.ModelInferResponse, wanted: list[Wanted], outputs: Mapping[str, Array]) -> None:
    for output in wanted:
        array = outputs[output.name]
        values = b""
        if output.place is None:
            values = array.tobytes()
        else:
            await asyncio.to_thread(output.place.write, array.reshape(-1).view(np.uint8))
        datatype = "FP32" if output.name == SCORES else "UINT8"
        _add(answer, output, datatype, array.shape, values)


def _add(
    answer: pb.ModelInferResponse, output: Wanted, datatype: str, shape: tuple[int, ...], values: bytes
) -> None:
    """Add an output: clients count the entries of `raw_output_contents` by position, so each has one."""
    tensor = answer.outputs.add(name=output.name, datatype=datatype, shape=shape)
    answer.raw_output_contents.append(values)
    if output.place is not None:
        region = output.place.region
        tensor.parameters["shared_memory_region"].string_param = region.name
        tensor.parameters["shared_memory_byte_size"].int64_param = output.place.size_bytes
        tensor.parameters["shared_memory_offset"].int64_param = output.place.start - region.offset
