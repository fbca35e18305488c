"""`SegmentPlane`: pixels come in, tiles go out as they are done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.records import Segmentation, SegmentationState, SegmentOptions
from segmentd.rpc import plane_call
from segmentd.rpc.blocks import fill, tile_pieces
from segmentd.rpc.convert import model_reference, pixel_type_record, segmentation_message
from segmentd.rpc.deadline import deadline_of
from segmentd.rpc.faults import bad_field
from segmentd.rpc.plane_call import Announced, PlaneCall, PlaneCalls
from segmentd.v1 import segmentation_service_pb2 as pb


async def run(
    planes: PlaneCalls, requests: AsyncIterator[pb.SegmentPlaneRequest], client: str
) -> AsyncIterator[pb.SegmentPlaneResponse]:
    """Answer one call of a client."""
    planes.check_open()
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("part") != "head":
        raise bad_field("head", "the first message must hold the head of the plane")
    plane = _announced(first.head, client)
    async with (
        planes.segmenting(plane, lambda: _receive(requests, plane)) as call,
        aclosing(call.tiles()) as tiles,
    ):
        async for tile in tiles:
            for piece in tile_pieces(tile.region, tile.labels, tile.confidence):
                response = pb.SegmentPlaneResponse()
                fill(response.block, piece, first.head.encoding)
                yield response
    telemetry.count("submitted_planes")
    yield pb.SegmentPlaneResponse(summary=segmentation_message(_summary(plane, call)))


def _summary(plane: Announced, call: PlaneCall) -> Segmentation:
    return Segmentation(
        watch="",
        source=b"",
        source_path=b"",
        state=SegmentationState.SUCCEEDED,
        version=0,
        height=plane.shape[1],
        width=plane.shape[2],
        model=call.card.id,
        model_digest=call.card.digest,
        classes=call.card.classes,
        label_pixel_counts=call.tally.label_pixel_counts,
        mean_confidence=call.tally.mean_confidence,
        masked_pixels=call.tally.masked_pixels,
        device=call.tally.device,
        device_reason=call.tally.device_reason,
        compute_seconds=call.tally.compute_seconds,
    )


def _announced(head: pb.SegmentPlaneRequest.Head, client: str) -> Announced:
    limits = (
        ("height", head.height, 1, plane_call.MAX_EDGE_PX),
        ("width", head.width, 1, plane_call.MAX_EDGE_PX),
        ("channel_count", head.channel_count, 1, plane_call.MAX_CHANNELS),
        ("min_confidence", head.min_confidence, 0, 100),
        ("border_pixels", head.border_pixels, 0, plane_call.MAX_BORDER_PX),
        ("priority", head.priority, -plane_call.MAX_PRIORITY, plane_call.MAX_PRIORITY),
    )
    for field, value, low, high in limits:
        plane_call.check_range(f"head.{field}", value, low, high)
    if head.HasField("tile_pixels"):
        plane_call.check_range(
            "head.tile_pixels", head.tile_pixels, plane_call.MIN_TILE_PX, plane_call.MAX_TILE_PX
        )
    options = SegmentOptions(
        border_px=head.border_pixels if head.HasField("border_pixels") else None,
        tile_px=head.tile_pixels if head.HasField("tile_pixels") else None,
        min_confidence=head.min_confidence,
        postprocessing=plane_call.check_postprocessing("head.postprocessing", head.postprocessing),
        confidence="marginal" if head.marginal_confidence else "map",
    )
    plane_call.check_marginal("head.marginal_confidence", options, "head.postprocessing")
    return Announced(
        model_reference(head.model, "head.model"),
        pixel_type_record(head.pixel_type, "head.pixel_type"),
        (head.channel_count, head.height, head.width),
        options,
        deadline_of(
            head.deadline_duration if head.HasField("deadline_duration") else None, "head.deadline_duration"
        ),
        client,
        head.priority,
        field="head.model",
    )


async def _receive(
    requests: AsyncIterator[pb.SegmentPlaneRequest], plane: Announced
) -> npt.NDArray[np.generic]:
    buffer = np.empty(plane.size_bytes, np.uint8)
    filled = 0
    async for request in requests:
        if request.WhichOneof("part") != "pixels":
            raise bad_field("pixels", "after the head, every message must hold pixels")
        end = filled + len(request.pixels)
        if end > len(buffer):
            raise bad_field(
                "pixels", f"more than the {len(buffer):,} bytes that the head announced were sent"
            )
        buffer[filled:end] = np.frombuffer(request.pixels, np.uint8)
        filled = end
        telemetry.count("api_received_bytes", len(request.pixels))
    if filled != len(buffer):
        raise bad_field("pixels", f"{filled:,} bytes were sent, the head announced {len(buffer):,}")
    return plane.values(buffer)
