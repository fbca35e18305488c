"""`SegmentPlane`: pixels come in, tiles go out as they are done; nothing is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.compute.postprocessing import CRF, postprocessings
from segmentd.engine.lanes import Lane
from segmentd.engine.segmenter import Tally, TileResult
from segmentd.engine.slot import Slot, Turn
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.models.fit import used_channels
from segmentd.models.registry import Lease
from segmentd.pipeline import Engine
from segmentd.records import PixelType, Segmentation, SegmentationState, SegmentOptions
from segmentd.rpc.blocks import tile_blocks
from segmentd.rpc.convert import model_reference, pixel_type_record, segmentation_message
from segmentd.rpc.deadline import Deadline, deadline_of
from segmentd.rpc.faults import bad_field
from segmentd.v1 import segmentation_service_pb2 as pb

MAX_PLANE_BYTES = 1 << 30
MAX_BYTES_IN_FLIGHT = 4 << 30
MAX_TILE_PX = 1 << 14
MAX_BORDER_PX = 4096
MAX_CHANNELS = 64
MAX_PRIORITY = 1000
SOURCE = "submitted plane"


@dataclass(frozen=True)
class _Head:
    model: str
    pixel_type: PixelType
    shape: tuple[int, int, int]
    options: SegmentOptions
    priority: int
    deadline: Deadline

    @property
    def size_bytes(self) -> int:
        channels, height, width = self.shape
        return channels * height * width * np.dtype(self.pixel_type.value).itemsize


class PlaneCalls:
    """Runs `SegmentPlane` calls on the engine and counts the bytes they hold."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bytes_in_flight = 0
        self._closed = False
        self._calls: set[_Call] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def refuse(self) -> None:
        """Refuse new calls with SHUTTING_DOWN."""
        self._closed = True

    async def finish(self) -> None:
        """Wait until the calls in work have ended."""
        await self._idle.wait()

    def close(self) -> None:
        """End the calls in work with SHUTTING_DOWN, and refuse new ones."""
        self.refuse()
        for call in self._calls:
            call.end()

    async def run(
        self, requests: AsyncIterator[pb.SegmentPlaneRequest], client: str = SOURCE
    ) -> AsyncIterator[pb.SegmentPlaneResponse]:
        """Answer one call of a client; clients take turns with one another and with watches."""
        if self._closed:
            raise _shutting_down()
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("part") != "head":
            raise bad_field("head", "the first message must hold the head of the plane")
        head = _check_head(first.head)
        async with self._engine.registry.lease(head.model) as lease:
            # Refuse a plane that does not fit before its pixels are sent.
            names = tuple(f"channel {index + 1}" for index in range(head.shape[0]))
            channels = used_channels(lease.card, head.pixel_type, names, SOURCE)
            if not lease.card.classes:
                raise bad_field(
                    "head.model",
                    f"model '{lease.card.display_name}' makes images, and only labels are sent back; drop "
                    "the image into a watched folder, or use 'segmentd segment'",
                )
            with self._room(head.size_bytes):
                async with head.deadline.limit():
                    source = ArraySource(await _receive(requests, head))
                slot = Slot(self._engine.scheduler, client, head.priority, str(lease.path))
                call = _Call(self._engine.lane, lease, source, channels, head, slot)
                self._calls.add(call)
                self._idle.clear()
                try:
                    async for tile in call.tiles():
                        packing = first.head.encoding
                        for block in tile_blocks(tile.region, tile.labels, tile.confidence, packing):
                            yield pb.SegmentPlaneResponse(block=block)
                finally:
                    self._calls.discard(call)
                    if not self._calls:
                        self._idle.set()
        summary = Segmentation(
            watch="",
            source=b"",
            source_path=b"",
            state=SegmentationState.SUCCEEDED,
            version=0,
            height=head.shape[1],
            width=head.shape[2],
            model=lease.card.id,
            model_digest=lease.card.digest,
            classes=lease.card.classes,
            label_pixel_counts=call.tally.label_pixel_counts,
            mean_confidence=call.tally.mean_confidence,
            masked_pixels=call.tally.masked_pixels,
            device=call.tally.device,
            device_reason=call.tally.device_reason,
            compute_seconds=call.tally.compute_seconds,
        )
        telemetry.count("submitted_planes")
        yield pb.SegmentPlaneResponse(summary=segmentation_message(summary))

    @contextmanager
    def _room(self, size_bytes: int) -> Iterator[None]:
        if size_bytes > MAX_PLANE_BYTES:
            raise SegmentdError(
                Reason.PLANE_TOO_LARGE,
                f"the plane has {size_bytes:,} bytes, at most {MAX_PLANE_BYTES:,} can be sent; send it in "
                "parts or drop the file into a watched folder",
            )
        if self._bytes_in_flight + size_bytes > MAX_BYTES_IN_FLIGHT:
            raise SegmentdError(Reason.DEVICE_BUSY, "too many planes are being sent at the moment; try again")
        self._bytes_in_flight += size_bytes
        try:
            yield
        finally:
            self._bytes_in_flight -= size_bytes


class _Call:
    """One plane on its way through the lane; `tally` is complete when the tiles have ended."""

    def __init__(
        self, lane: Lane, lease: Lease, source: ArraySource, channels: slice, head: _Head, slot: Slot
    ) -> None:
        self._lane = lane
        self._lease = lease
        self._source = source
        self._channels = channels
        self._head = head
        self._slot = slot
        self._given_up = False
        self._ended = False
        # Not bounded: all tiles together are as large as the plane's labels and confidence.
        self._tiles: asyncio.Queue[TileResult | None] = asyncio.Queue()
        self.tally = Tally(len(lease.card.classes))

    def end(self) -> None:
        """End the call: the daemon stops."""
        self._ended = True
        self._tiles.put_nowait(None)

    async def tiles(self) -> AsyncIterator[TileResult]:
        """Tiles as they are done; the work ends when nobody wants them any more.

        Raises
        ------
        SegmentdError
            DEADLINE_EXPIRED, SHUTTING_DOWN, or what computing raises.
        """
        loop = asyncio.get_running_loop()
        deadline, turn = self._head.deadline, Turn(self._slot, loop)
        async with deadline.limit():
            await self._slot.acquire()
        work = asyncio.create_task(asyncio.to_thread(self._compute, turn, loop))
        work.add_done_callback(lambda _: self._tiles.put_nowait(None))
        try:
            while (tile := await self._next(deadline)) is not None:
                yield tile
            if self._ended:
                raise _shutting_down()
            await work
        finally:
            self._given_up = True
            turn.end()
            await asyncio.wait([work])
            self._slot.release()

    async def _next(self, deadline: Deadline) -> TileResult | None:
        async with deadline.limit():
            return await self._tiles.get()

    def _compute(self, turn: Turn, loop: asyncio.AbstractEventLoop) -> None:
        def on_tile(tile: TileResult) -> None:
            if self._given_up:
                raise _shutting_down()
            loop.call_soon_threadsafe(self._tiles.put_nowait, tile)

        plane = (self._lease.path, self._source, self._head.options, self._channels)
        for band in self._lane.segment(*plane, on_tile, self._lease.card.digest):
            self.tally.add(band)
            if band.end_row < self._source.shape[1]:
                turn.after(band)


def _shutting_down() -> SegmentdError:
    return SegmentdError(Reason.SHUTTING_DOWN, "the daemon is stopping; send the plane again when it is back")


def _check_head(head: pb.SegmentPlaneRequest.Head) -> _Head:
    limits = (
        ("height", head.height, 1, 1 << 30),
        ("width", head.width, 1, 1 << 30),
        ("channel_count", head.channel_count, 1, MAX_CHANNELS),
        ("min_confidence", head.min_confidence, 0, 100),
        ("border_pixels", head.border_pixels, 0, MAX_BORDER_PX),
        ("priority", head.priority, -MAX_PRIORITY, MAX_PRIORITY),
    )
    for field, value, low, high in limits:
        if not low <= value <= high:
            raise bad_field(f"head.{field}", f"{value} must be {low} to {high}")
    if head.HasField("tile_pixels") and not 16 <= head.tile_pixels <= MAX_TILE_PX:
        raise bad_field("head.tile_pixels", f"{head.tile_pixels} must be 16 to {MAX_TILE_PX}")
    options = SegmentOptions(
        border_px=head.border_pixels if head.HasField("border_pixels") else None,
        tile_px=head.tile_pixels if head.HasField("tile_pixels") else None,
        min_confidence=head.min_confidence,
        postprocessing=_postprocessing(head.postprocessing),
        confidence="marginal" if head.marginal_confidence else "map",
    )
    if head.marginal_confidence and options.postprocessing != CRF:
        raise bad_field("head.marginal_confidence", f"needs head.postprocessing '{CRF}'")
    return _Head(
        model_reference(head.model, "head.model"),
        pixel_type_record(head.pixel_type, "head.pixel_type"),
        (head.channel_count, head.height, head.width),
        options,
        head.priority,
        deadline_of(
            head.deadline_duration if head.HasField("deadline_duration") else None, "head.deadline_duration"
        ),
    )


def _postprocessing(name: str) -> str | None:
    names = [entry.name for entry in postprocessings()]
    if name and name not in names:
        raise bad_field("head.postprocessing", f"'{name}' must be one of {', '.join(names)}")
    return name or None


async def _receive(requests: AsyncIterator[pb.SegmentPlaneRequest], head: _Head) -> npt.NDArray[np.generic]:
    buffer = np.empty(head.size_bytes, np.uint8)
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
    values: npt.NDArray[np.generic] = buffer.view(np.dtype(head.pixel_type.value).newbyteorder("<"))
    return values.reshape(head.shape)
