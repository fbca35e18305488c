"""`WatchService`: which folders are watched, how they fare, and changes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.empty_pb2 import Empty

from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.convert import page_size, page_start, resource_id
from segmentd.rpc.faults import Context, bad_field
from segmentd.rpc.watch_messages import given, in_fields, masked, watch_message
from segmentd.v1 import watch_service_pb2 as pb
from segmentd.v1 import watch_service_pb2_grpc
from segmentd.watches import Watch, Watches


class WatchService(watch_service_pb2_grpc.WatchServiceServicer):
    """Serves the watches."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches

    async def GetWatch(self, request: pb.GetWatchRequest, context: Context) -> pb.Watch:
        return await _answer(self._watches.get(_id(request.name)))

    async def ListWatches(self, request: pb.ListWatchesRequest, context: Context) -> pb.ListWatchesResponse:
        watches = self._watches.list()
        start, size = page_start(request.page_token), page_size(request.page_size)
        more = start + size < len(watches)
        return pb.ListWatchesResponse(
            watches=await asyncio.gather(*map(_answer, watches[start : start + size])),
            next_page_token=str(start + size) if more else "",
        )

    async def CreateWatch(self, request: pb.CreateWatchRequest, context: Context) -> pb.Watch:
        if not request.watch_id:
            raise bad_field("watch_id", "must be given")
        raw = given(request.watch) | {"id": request.watch_id}
        with _rules_in_fields():
            watch = await self._watches.create(raw, validate_only=request.validate_only)
        return await _answer(watch)

    async def UpdateWatch(self, request: pb.UpdateWatchRequest, context: Context) -> pb.Watch:
        identity = _id(request.watch.name, "watch.name")
        paths = request.update_mask.paths
        changes = masked(request.watch, paths) if paths else given(request.watch)
        with _rules_in_fields():
            watch = await self._watches.update(
                identity, changes, request.watch.etag, validate_only=request.validate_only
            )
        return await _answer(watch)

    async def PauseWatch(self, request: pb.PauseWatchRequest, context: Context) -> pb.Watch:
        return await _answer(await self._watches.set_paused(_id(request.name), True, request.etag))

    async def ResumeWatch(self, request: pb.ResumeWatchRequest, context: Context) -> pb.Watch:
        return await _answer(await self._watches.set_paused(_id(request.name), False, request.etag))

    async def DeleteWatch(self, request: pb.DeleteWatchRequest, context: Context) -> Empty:
        await self._watches.delete(_id(request.name), request.etag)
        return Empty()


async def _answer(watch: Watch) -> pb.Watch:
    return watch_message(watch, await watch.status())


def _id(name: str, field: str = "name") -> str:
    return resource_id(name, "watches", field)


@contextmanager
def _rules_in_fields() -> Iterator[None]:
    """Tell rules of the configuration that a request breaks in the request's words."""
    try:
        yield
    except SegmentdError as error:
        if error.reason in (Reason.BAD_CONFIGURATION, Reason.FOLDER_OUTSIDE_ROOTS):
            raise in_fields(error) from error
        raise
