"""`ServerService`: the daemon itself."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence

from segmentd import __version__, telemetry
from segmentd.engine.lanes import DeviceState
from segmentd.errors import Reason
from segmentd.pipeline import Engine
from segmentd.records import Fault, ResultEvent
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.rpc.convert import duration, printable, timestamp
from segmentd.rpc.faults import Context, bad_field
from segmentd.rpc.host_paths import without_folders
from segmentd.settings.values import UNLIMITED
from segmentd.telemetry.meter import BOUNDS, Histogram, StageTotal
from segmentd.v1 import server_service_pb2 as pb
from segmentd.v1 import server_service_pb2_grpc
from segmentd.watches import Watch, Watches
from segmentd.watches.tally import device_seconds

SHOWN_FAILURES = 5


class ServerService(server_service_pb2_grpc.ServerServiceServicer):
    """Tells version, devices, load and the state of the journal."""

    def __init__(
        self,
        engine: Engine,
        watches: Watches,
        journal: Journal,
        feed: Feed,
        subscribers: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._watches = watches
        self._journal = journal
        self._feed = feed
        self._subscribers = subscribers
        self._started = time.time()
        self._started_monotonic = time.monotonic()

    async def GetServer(self, request: pb.GetServerRequest, context: Context) -> pb.Server:
        if request.name != "server":
            raise bad_field("name", f"'{request.name}' must be 'server'")
        journal = self._journal
        last, oldest, size, failures = await asyncio.to_thread(
            lambda: (
                journal.last_number(),
                journal.oldest_number(),
                journal.size_bytes(),
                journal.failures(SHOWN_FAILURES),
            )
        )
        watches = self._watches.list()
        loads = [watch.load() for watch in watches]
        busy = device_seconds(watch.tally for watch in watches)
        return pb.Server(
            name="server",
            version=__version__,
            start_time=timestamp(self._started),
            uptime=duration(time.monotonic() - self._started_monotonic),
            devices=[_device(device, busy) for device in self._engine.lane.devices()],
            planes_in_flight=self._engine.scheduler.in_flight,
            journal_id=self._journal.id,
            last_event_number=last,
            oldest_cursor=self._feed.cursor(max(0, oldest - 1)),
            subscriber_count=self._subscribers(),
            waiting_count=sum(load.waiting for load in loads),
            images_per_minute=sum(load.images_last_minute for load in loads),
            megapixels_per_second=sum(load.pixels_last_minute for load in loads) / 60e6,
            recent_failures=map(_failure, failures),
            journal_size_bytes=size,
            slot_count=self._engine.scheduler.slots,
            stages=[_stage(name, total) for name, total in _stages(watches).items()],
            stage_bounds_seconds=BOUNDS,
        )


def _stages(watches: Sequence[Watch]) -> dict[str, StageTotal]:
    latency = Histogram()
    for watch in watches:
        latency.merge(watch.tally.latency)
    return {**telemetry.METER.stages(), "latency": latency.total()}


def _stage(name: str, total: StageTotal) -> pb.Server.Stage:
    return pb.Server.Stage(
        name=name, count=total.count, duration=duration(total.seconds), bucket_counts=total.buckets
    )


def _device(device: DeviceState, busy: Mapping[str, float]) -> pb.Server.Device:
    message = pb.Server.Device(
        name=device.name,
        display_name=device.display_name,
        thread_count=device.threads,
        reason=without_folders(device.reason),
        work_duration=duration(busy.get(device.name, 0.0)),
    )
    if device.counts is not None:
        message.batch_count, message.batch_tile_count = device.counts.batches, device.counts.tiles
    if device.memory is not None:
        limited = device.memory.budget_bytes < UNLIMITED
        message.memory_budget_bytes = device.memory.budget_bytes if limited else 0
        message.memory_used_bytes = device.memory.held_bytes
        message.resident_models.extend(device.memory.models)
        message.model_load_count = device.memory.loads
    return message


def _failure(event: ResultEvent) -> pb.Server.Failure:
    record = event.segmentation
    fault = record.fault or Fault(Reason.INTERNAL, "")
    return pb.Server.Failure(
        segmentation=event.name,
        source_display=printable(record.source),
        reason=fault.reason,
        message=without_folders(printable(os.fsencode(fault.message))),
        create_time=timestamp(record.create_time),
    )
