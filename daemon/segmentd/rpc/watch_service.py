"""`WatchService`: which folders are watched and how they fare."""

from __future__ import annotations

import os

from segmentd.rpc.convert import duration, page_size, page_start, printable, resource_id
from segmentd.rpc.faults import Context
from segmentd.v1 import watch_service_pb2 as pb
from segmentd.v1 import watch_service_pb2_grpc
from segmentd.watches import Watch, Watches

_STATES = {
    "starting": pb.Watch.STATE_ACTIVE,
    "active": pb.Watch.STATE_ACTIVE,
    "failed": pb.Watch.STATE_FAILED,
    "unreachable": pb.Watch.STATE_UNREACHABLE,
}
_MODES = {"events": pb.Watch.MODE_EVENTS, "poll": pb.Watch.MODE_POLL}


class WatchService(watch_service_pb2_grpc.WatchServiceServicer):
    """Serves the watches."""

    def __init__(self, watches: Watches) -> None:
        self._watches = watches

    async def GetWatch(self, request: pb.GetWatchRequest, context: Context) -> pb.Watch:
        return _message(self._watches.get(resource_id(request.name, "watches")))

    async def ListWatches(self, request: pb.ListWatchesRequest, context: Context) -> pb.ListWatchesResponse:
        watches = self._watches.list()
        start, size = page_start(request.page_token), page_size(request.page_size)
        more = start + size < len(watches)
        return pb.ListWatchesResponse(
            watches=[_message(watch) for watch in watches[start : start + size]],
            next_page_token=str(start + size) if more else "",
        )


def _message(watch: Watch) -> pb.Watch:
    spec, status = watch.spec, watch.status()
    folder, results = os.fsencode(spec.folder), os.fsencode(spec.results)
    return pb.Watch(
        name=f"watches/{spec.id}",
        folder=folder,
        folder_display=printable(folder),
        include_globs=spec.include,
        recursive=spec.recursive,
        model=f"models/{status.model}",
        results_folder=results,
        results_folder_display=printable(results),
        outputs=spec.outputs,
        settle_duration=duration(spec.settle_seconds),
        min_confidence=spec.options.min_confidence,
        state=_STATES[status.state],
        state_reason=status.state_reason,
        mode=_MODES[status.mode],
        mode_reason=status.mode_reason,
        done_count=status.done,
        failed_count=status.failed,
        waiting_count=status.waiting,
        ignored_count=status.ignored,
        warnings=status.warnings,
    )
