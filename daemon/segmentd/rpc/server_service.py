"""`ServerService`: the daemon itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from segmentd import __version__
from segmentd.pipeline import Engine
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.rpc.convert import duration, timestamp
from segmentd.rpc.faults import Context, bad_field
from segmentd.v1 import server_service_pb2 as pb
from segmentd.v1 import server_service_pb2_grpc


class ServerService(server_service_pb2_grpc.ServerServiceServicer):
    """Tells version, devices, load and the state of the journal."""

    def __init__(self, engine: Engine, journal: Journal, feed: Feed, subscribers: Callable[[], int]) -> None:
        self._engine = engine
        self._journal = journal
        self._feed = feed
        self._subscribers = subscribers
        self._started = time.time()
        self._started_monotonic = time.monotonic()

    async def GetServer(self, request: pb.GetServerRequest, context: Context) -> pb.Server:
        if request.name != "server":
            raise bad_field("name", f"'{request.name}' must be 'server'")
        last, oldest = await asyncio.to_thread(
            lambda: (self._journal.last_number(), self._journal.oldest_number())
        )
        return pb.Server(
            name="server",
            version=__version__,
            start_time=timestamp(self._started),
            uptime=duration(time.monotonic() - self._started_monotonic),
            devices=[
                pb.Server.Device(
                    name=device.name,
                    display_name=device.display_name,
                    thread_count=device.threads,
                    reason=device.reason,
                )
                for device in self._engine.lane.devices()
            ],
            planes_in_flight=self._engine.scheduler.in_flight,
            journal_id=self._journal.id,
            last_event_number=last,
            oldest_cursor=self._feed.cursor(max(0, oldest - 1)),
            subscriber_count=self._subscribers(),
        )
