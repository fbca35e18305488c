"""`SegmentationService`: results of the journal, subscriptions, and planes sent by the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Literal

from segmentd.compute.postprocessing import postprocessings
from segmentd.errors import Reason, SegmentdError
from segmentd.records import Region, ResultEvent, Segmentation, SegmentationState
from segmentd.results.feed import Feed, Heartbeat
from segmentd.results.journal import Journal
from segmentd.results.previews import Preview
from segmentd.rpc import segment_plane
from segmentd.rpc.blocks import fill, split
from segmentd.rpc.convert import (
    event_message,
    event_number,
    page_size,
    page_start,
    resource_id,
    segmentation_message,
)
from segmentd.rpc.faults import Context, bad_field, fault_of, status_of
from segmentd.rpc.pixels import PixelReader, cut
from segmentd.rpc.plane_call import PlaneCalls
from segmentd.v1 import pixels_pb2, segmentation_service_pb2_grpc
from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd.watches import Watches

HEARTBEAT_SECONDS = 10.0


class SegmentationService(segmentation_service_pb2_grpc.SegmentationServiceServicer):
    """Serves journal and feed; planes sent by callers go to the engine."""

    def __init__(self, planes: PlaneCalls, watches: Watches, journal: Journal, feed: Feed) -> None:
        self._watches = watches
        self._journal = journal
        self._feed = feed
        self._planes = planes
        self._pixels = PixelReader(feed.recent)
        self.subscribers = 0

    async def GetSegmentation(self, request: pb.GetSegmentationRequest, context: Context) -> pb.Segmentation:
        return event_message(await self._event(request.name))

    async def ListSegmentations(
        self, request: pb.ListSegmentationsRequest, context: Context
    ) -> pb.ListSegmentationsResponse:
        watch = await self._watch(request.parent)
        after, size = page_start(request.page_token), page_size(request.page_size)
        events = await asyncio.to_thread(self._journal.events, after, size + 1, watch)
        page = events[:size]
        return pb.ListSegmentationsResponse(
            segmentations=[event_message(event) for event in page],
            next_page_token=str(page[-1].number) if len(events) > size else "",
        )

    async def ReadSegmentation(
        self, request: pb.ReadSegmentationRequest, context: Context
    ) -> AsyncIterator[pb.ReadSegmentationResponse]:
        event = await self._event(request.name)
        record = event.segmentation
        region = Region(0, 0, record.height, record.width)
        if request.HasField("region") and record.state is SegmentationState.SUCCEEDED:
            region = _inside(request.region, record)
        async for piece in self._pixels.pieces(record, region):
            response = pb.ReadSegmentationResponse()
            fill(response.block, piece, request.encoding)
            yield response

    async def SubscribeSegmentations(
        self, request: pb.SubscribeSegmentationsRequest, context: Context
    ) -> AsyncIterator[pb.SubscribeSegmentationsResponse]:
        watch = await self._watch(request.parent)
        start: Literal["new", "oldest"] = "oldest" if request.start == request.START_OLDEST else "new"
        await context.send_initial_metadata(())
        self.subscribers += 1
        items = self._feed.subscribe(
            watch, request.cursor or None, start, HEARTBEAT_SECONDS, request.previews
        )
        try:
            async with aclosing(items):
                async for item in items:
                    if isinstance(item, Heartbeat):
                        yield pb.SubscribeSegmentationsResponse(cursor=item.cursor)
                        continue
                    if isinstance(item, Preview):
                        for part in _preview_parts(item, request):
                            yield part
                        continue
                    async for part in self._parts(item, request):
                        yield part
        finally:
            self.subscribers -= 1

    async def SegmentPlane(
        self,
        request_iterator: AsyncIterator[pb.SegmentPlaneRequest],
        context: Context,
    ) -> AsyncIterator[pb.SegmentPlaneResponse]:
        client = f"client {context.peer()}"
        async for response in segment_plane.run(self._planes, request_iterator, client):
            yield response

    async def _parts(
        self, event: ResultEvent, request: pb.SubscribeSegmentationsRequest
    ) -> AsyncIterator[pb.SubscribeSegmentationsResponse]:
        record = event.segmentation
        cursor = self._feed.cursor(event.number)
        head = pb.SubscribeSegmentationsResponse.Head(segmentation=event_message(event), number=event.number)
        if request.metadata_only or record.state is not SegmentationState.SUCCEEDED:
            yield pb.SubscribeSegmentationsResponse(head=head, cursor=cursor)
            return
        whole = Region(0, 0, record.height, record.width)
        count = sum(1 for _ in split(whole))
        sent = 0
        try:
            async for piece in self._pixels.pieces(record, whole):
                if not sent:
                    head.block_count = count
                    yield pb.SubscribeSegmentationsResponse(head=head)
                sent += 1
                part = pb.SubscribeSegmentationsResponse(cursor=cursor if sent == count else "")
                fill(part.block, piece, request.encoding)
                yield part
        except SegmentdError as error:
            # Also when some blocks are out: the head once more, so that the subscriber gets past it.
            head.block_count = 0
            head.blocks_error.CopyFrom(status_of(fault_of(error)))
            yield pb.SubscribeSegmentationsResponse(head=head, cursor=cursor)

    async def ListPostprocessings(
        self, request: pb.ListPostprocessingsRequest, context: Context
    ) -> pb.ListPostprocessingsResponse:
        found = [pb.Postprocessing(**asdict(entry)) for entry in postprocessings()]
        return pb.ListPostprocessingsResponse(postprocessings=found)

    async def _watch(self, parent: str) -> str | None:
        """Id of the watch, None for all; one that was deleted is known as long as it has segmentations."""
        watch = resource_id(parent, "watches", "parent")
        if watch == "-":
            return None
        try:
            return self._watches.get(watch).spec.id
        except SegmentdError:
            if not await asyncio.to_thread(self._journal.events, 0, 1, watch):
                raise
            return watch

    async def _event(self, name: str) -> ResultEvent:
        watch, number = event_number(name)
        event = await asyncio.to_thread(self._journal.event, number)
        if event is None or watch not in ("-", event.segmentation.watch):
            raise SegmentdError(
                Reason.SEGMENTATION_NOT_FOUND,
                f"there is no segmentation '{name}': the name is wrong or the journal no longer keeps it",
                resource=name,
            )
        return event


def _preview_parts(
    preview: Preview, request: pb.SubscribeSegmentationsRequest
) -> Iterator[pb.SubscribeSegmentationsResponse]:
    record = preview.segmentation
    pieces = [] if request.metadata_only else cut(preview.planes, Region(0, 0, record.height, record.width))
    message = segmentation_message(record)
    head = pb.SubscribeSegmentationsResponse.Head(segmentation=message, preview=True, block_count=len(pieces))
    yield pb.SubscribeSegmentationsResponse(head=head)
    for piece in pieces:
        part = pb.SubscribeSegmentationsResponse()
        fill(part.block, piece, request.encoding)
        yield part


def _inside(message: pixels_pb2.Region, record: Segmentation) -> Region:
    region = Region(message.y, message.x, message.height, message.width)
    inside = (
        region.y >= 0
        and region.x >= 0
        and region.height >= 1
        and region.width >= 1
        and region.y + region.height <= record.height
        and region.x + region.width <= record.width
    )
    if not inside:
        raise bad_field("region", f"must lie inside the plane of {record.height} x {record.width} pixels")
    return region
