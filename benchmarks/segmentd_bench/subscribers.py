"""Many subscribers of one daemon at once: live ones, slow ones, and some that stop reading."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from itertools import pairwise

import grpc

from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd.v1 import segmentation_service_pb2_grpc
from segmentd_bench import arrivals

# Each a connection of its own, as different programs have.
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


@dataclass(eq=False)
class Subscriber:
    """One subscription and what it brought.

    Attributes
    ----------
    with_pixels : bool
        Whether it asks for blocks, too.
    pause_s : float
        How long it does not read after each event.
    stops : bool
        Whether it does not read on after its first event, until `resume` is set.
    numbers : list of int
        Numbers of the events in the order in which they came.
    lags_s : dict of str to float
        By path of the image: seconds from durable at the daemon to complete at the subscriber.
    last_event : float
        When the last event came, in seconds of `time.monotonic`.
    """

    with_pixels: bool
    pause_s: float = 0.0
    stops: bool = False
    numbers: list[int] = field(default_factory=list)
    lags_s: dict[str, float] = field(default_factory=dict)
    last_event: float = 0.0
    connected: bool = False
    resume: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def live(self) -> bool:
        """Whether it reads as fast as it can."""
        return not self.stops and not self.pause_s

    @property
    def in_order(self) -> bool:
        """Whether the events came in the order of the journal, each once."""
        return all(earlier < later for earlier, later in pairwise(self.numbers))

    async def follow(self, address: str, total: int) -> None:
        """Read until `total` events have come, from the oldest on."""
        request = pb.SubscribeSegmentationsRequest(
            parent=arrivals.ALL_WATCHES,
            start=pb.SubscribeSegmentationsRequest.START_OLDEST,
            metadata_only=not self.with_pixels,
        )
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            stub = segmentation_service_pb2_grpc.SegmentationServiceStub(channel)
            head = arrivals.Part.Head()
            async for part in stub.SubscribeSegmentations(request):
                self.connected = True
                kind = part.WhichOneof("part")
                if kind == "head":
                    head = part.head
                    arrivals.check(head)
                if kind is None or not part.cursor:
                    continue
                self._take(head)
                if len(self.numbers) == total:
                    return
                await self._rest()

    def _take(self, head: arrivals.Part.Head) -> None:
        durable = head.segmentation.create_time.ToNanoseconds() / 1e9
        self.numbers.append(head.number)
        self.lags_s[os.fsdecode(head.segmentation.source_path)] = time.time() - durable
        self.last_event = time.monotonic()

    async def _rest(self) -> None:
        if self.stops:
            await self.resume.wait()
        elif self.pause_s:
            await asyncio.sleep(self.pause_s)


def crowd(count: int, slow: int, stopped: int, pause_s: float) -> list[Subscriber]:
    """`count` subscribers, of each kind every other one with pixels."""
    live = count - slow - stopped
    return [
        *(Subscriber(index % 2 == 0) for index in range(live)),
        *(Subscriber(index % 2 == 0, pause_s=pause_s) for index in range(slow)),
        *(Subscriber(index % 2 == 0, stops=True) for index in range(stopped)),
    ]
