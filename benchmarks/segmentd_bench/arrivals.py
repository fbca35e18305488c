"""A subscriber that notes when each part of a result reaches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from segmentctl.calls import open_channel
from segmentctl.errors import DaemonError, translated
from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd.v1 import segmentation_service_pb2_grpc
from segmentd_bench.errors import BenchmarkError

Part = pb.SubscribeSegmentationsResponse
ALL_WATCHES = "watches/-"


@dataclass(frozen=True)
class Arrival:
    """When a result reached the subscriber: its head, its first block and its last part.

    Times are seconds of `time.monotonic`. Without blocks, all three are the same.
    """

    segmentation: pb.Segmentation
    head: float
    first_block: float
    complete: float

    @property
    def name(self) -> str:
        """File name of the image."""
        return self.segmentation.source_display


def stamped(parts: Iterable[Part]) -> Iterator[Arrival]:
    """Turn the parts of a stream into arrivals; passes over heartbeats.

    Raises
    ------
    BenchmarkError
        If a segmentation failed or its pixels cannot be read.
    """
    segmentation, head, first_block = pb.Segmentation(), 0.0, 0.0
    for part in parts:
        now = time.monotonic()
        kind = part.WhichOneof("part")
        if kind == "head":
            segmentation, head, first_block = part.head.segmentation, now, 0.0
            check(part.head)
        elif kind == "block":
            first_block = first_block or now
        if kind is not None and part.cursor:
            yield Arrival(segmentation, head, first_block or head, now)


def check(head: Part.Head) -> None:
    """Refuse a result without labels: figures of failures are worth nothing."""
    problem = head.segmentation.error.message or head.blocks_error.message
    if problem:
        raise BenchmarkError(f"the daemon could not segment {head.segmentation.source_display}: {problem}")


def follow(address: str, limit_s: float, metadata_only: bool = False) -> Generator[Arrival]:
    """Follow all results of a daemon, from the oldest on, for at most `limit_s` seconds."""
    request = pb.SubscribeSegmentationsRequest(
        parent=ALL_WATCHES,
        start=pb.SubscribeSegmentationsRequest.START_OLDEST,
        metadata_only=metadata_only,
    )
    with closing(open_channel(address)) as channel, translated(address):
        stub = segmentation_service_pb2_grpc.SegmentationServiceStub(channel)
        call = stub.SubscribeSegmentations(request, timeout=limit_s)
        try:
            yield from stamped(call)
        finally:
            call.cancel()


def take(
    stream: Iterator[Arrival], wanted: Iterable[str], taken: Callable[[str], None] = lambda name: None
) -> dict[str, Arrival]:
    """Wait until all of these images have arrived.

    Parameters
    ----------
    stream
        What `follow` gives.
    wanted
        File names of the images; others are passed over.
    taken
        Called with the name of each as it arrives.

    Returns
    -------
    dict of str to Arrival
        By name, in the order of arrival.

    Raises
    ------
    BenchmarkError
        If the stream's time ran out before.
    """
    missing, found = set(wanted), dict[str, Arrival]()
    count = len(missing)
    try:
        while missing:
            arrival = next(stream)
            if arrival.name in missing:
                missing.remove(arrival.name)
                found[arrival.name] = arrival
                taken(arrival.name)
    except DaemonError as error:
        if error.code != "DEADLINE_EXCEEDED":
            raise
        raise BenchmarkError(
            f"only {count - len(missing)} of {count} images came back in time: "
            "ask for fewer or smaller ones, or for a higher --limit"
        ) from None
    return found
