"""Planes that callers send: admitted, given a model, sent through the lane; nothing is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentd.compute.postprocessing import CRF, postprocessings
from segmentd.engine.lanes import Lane
from segmentd.engine.segmenter import Tally, TileResult
from segmentd.engine.slot import Slot, Turn
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.models.fit import used_channels
from segmentd.models.registry import Lease
from segmentd.pipeline import Engine
from segmentd.records import ModelCard, PixelType, SegmentOptions
from segmentd.rpc.deadline import Deadline
from segmentd.rpc.faults import bad_field
from segmentd.threads import end_of

MAX_PLANE_BYTES = 1 << 30
MAX_BYTES_IN_FLIGHT = 4 << 30
MAX_EDGE_PX = 1 << 30
MIN_TILE_PX = 16
MAX_TILE_PX = 1 << 14
MAX_BORDER_PX = 4096
MAX_CHANNELS = 64
MAX_PRIORITY = 1000
SOURCE = "submitted plane"

Pixels = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Announced:
    """A plane that a caller is about to send.

    Attributes
    ----------
    model : str
        Id or display name.
    pixel_type : PixelType
        Of its values.
    shape : tuple of int
        (C, Y, X).
    options : SegmentOptions
        How it is segmented.
    deadline : Deadline
        When nobody wants it any more.
    client : str
        Who sends it: clients take turns with one another and with watches.
    priority : int
        Planes with a higher number go first.
    with_scores : bool
        Whether the probabilities of the classes are wanted too.
    field : str
        What the request calls the model, for messages.
    """

    model: str
    pixel_type: PixelType
    shape: tuple[int, int, int]
    options: SegmentOptions
    deadline: Deadline
    client: str = SOURCE
    priority: int = 0
    with_scores: bool = False
    field: str = "model"

    @property
    def size_bytes(self) -> int:
        """Bytes of its values."""
        channels, height, width = self.shape
        return channels * height * width * np.dtype(self.pixel_type.value).itemsize

    def values(self, data: npt.NDArray[np.uint8]) -> Pixels:
        """Its values in their shape, from their bytes, little endian."""
        pixels: Pixels = data.view(np.dtype(self.pixel_type.value).newbyteorder("<"))
        return pixels.reshape(self.shape)

    def score_bytes(self, classes: int) -> int:
        """What the probabilities of so many classes take, if they are wanted."""
        _, height, width = self.shape
        return 4 * classes * height * width if self.with_scores else 0


class PlaneCalls:
    """Runs calls on the engine and counts the bytes they hold."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bytes_in_flight = 0
        self._closed = False
        self._calls: set[PlaneCall] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def refuse(self) -> None:
        """Refuse new calls with SHUTTING_DOWN."""
        self._closed = True

    def check_open(self) -> None:
        """Raise SHUTTING_DOWN after `refuse`."""
        if self._closed:
            raise _shutting_down()

    async def finish(self) -> None:
        """Wait until the calls in work have ended."""
        await self._idle.wait()

    def close(self) -> None:
        """End the calls in work with SHUTTING_DOWN, and refuse new ones."""
        self.refuse()
        for call in self._calls:
            call.end()

    @asynccontextmanager
    async def segmenting(
        self, plane: Announced, receive: Callable[[], Awaitable[Pixels]]
    ) -> AsyncIterator[PlaneCall]:
        """Segment a plane for as long as the block runs.

        Parameters
        ----------
        plane : Announced
            What is to come. One that does not fit its model is refused before its pixels are sent.
        receive : callable
            Gives its pixels, an array of that shape and type.

        Raises
        ------
        SegmentdError
            Whatever is wrong with plane or model; DEVICE_BUSY; DEADLINE_EXPIRED; SHUTTING_DOWN.
        """
        self.check_open()
        async with self._engine.registry.lease(plane.model) as lease:
            names = tuple(f"channel {index + 1}" for index in range(plane.shape[0]))
            channels = used_channels(lease.card, plane.pixel_type, names, SOURCE)
            if not lease.card.classes:
                raise bad_field(
                    plane.field,
                    f"model '{lease.card.display_name}' makes images, and only labels are sent back; drop "
                    "the image into a watched folder, or use 'segmentd segment'",
                )
            with self._room(plane.size_bytes, plane.score_bytes(len(lease.card.classes))):
                async with plane.deadline.limit():
                    source = ArraySource(await receive())
                pixels = plane.shape[1] * plane.shape[2]
                slot = Slot(self._engine.scheduler, plane.client, plane.priority, str(lease.path), pixels)
                call = PlaneCall(self._engine.lane, lease, source, channels, plane, slot)
                self._calls.add(call)
                self._idle.clear()
                try:
                    yield call
                finally:
                    self._calls.discard(call)
                    if not self._calls:
                        self._idle.set()

    @contextmanager
    def _room(self, pixel_bytes: int, score_bytes: int) -> Iterator[None]:
        for size, what in ((pixel_bytes, "plane has"), (score_bytes, "scores have")):
            if size > MAX_PLANE_BYTES:
                raise SegmentdError(
                    Reason.PLANE_TOO_LARGE,
                    f"the {what} {size:,} bytes, at most {MAX_PLANE_BYTES:,} can be sent; send the plane in "
                    "parts or drop the file into a watched folder",
                )
        size_bytes = pixel_bytes + score_bytes
        if self._bytes_in_flight + size_bytes > MAX_BYTES_IN_FLIGHT:
            raise SegmentdError(Reason.DEVICE_BUSY, "too many planes are being sent at the moment; try again")
        self._bytes_in_flight += size_bytes
        try:
            yield
        finally:
            self._bytes_in_flight -= size_bytes


class PlaneCall:
    """One plane on its way through the lane.

    Attributes
    ----------
    lease : Lease
        The model.
    tally : Tally
        What is told of the plane; complete when the tiles have ended, and so are the scores.
    scores : float32 array (K, Y, X), optional
        The model's probability of each class, if they are wanted; 0 where a pixel is not a number.
    """

    def __init__(
        self, lane: Lane, lease: Lease, source: ArraySource, channels: slice, plane: Announced, slot: Slot
    ) -> None:
        self._lane = lane
        self.lease = lease
        self._source = source
        self._channels = channels
        self._options = plane.options
        self._deadline = plane.deadline
        self._slot = slot
        self.scores: npt.NDArray[np.float32] | None = None
        if plane.with_scores:
            self.scores = np.empty((len(lease.card.classes), *plane.shape[1:]), np.float32)
        self._given_up = False
        self._ended = False
        # Not bounded: all tiles together are as large as the plane's labels and confidence.
        self._tiles: asyncio.Queue[TileResult | None] = asyncio.Queue()
        self.tally = Tally(len(lease.card.classes))

    def end(self) -> None:
        """End the call: the daemon stops."""
        self._ended = True
        self._tiles.put_nowait(None)

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self.lease.card

    async def tiles(self) -> AsyncGenerator[TileResult, None]:
        """Tiles as they are done; the work ends when nobody wants them any more.

        Raises
        ------
        SegmentdError
            DEADLINE_EXPIRED, SHUTTING_DOWN, or what computing raises.
        """
        loop = asyncio.get_running_loop()
        turn = Turn(self._slot, loop)
        async with self._deadline.limit():
            await self._slot.acquire()
        work = asyncio.create_task(asyncio.to_thread(self._compute, turn, loop))
        work.add_done_callback(lambda _: self._tiles.put_nowait(None))
        try:
            while (tile := await self._next()) is not None:
                yield tile
            if self._ended:
                raise _shutting_down()
            await work
        finally:
            self._given_up = True
            turn.end()
            try:
                await end_of(work)
            finally:
                self._slot.release()

    async def _next(self) -> TileResult | None:
        async with self._deadline.limit():
            return await self._tiles.get()

    def _compute(self, turn: Turn, loop: asyncio.AbstractEventLoop) -> None:
        def on_tile(tile: TileResult) -> None:
            self._check_going_on()
            loop.call_soon_threadsafe(self._tiles.put_nowait, tile)

        plane = (self.lease.path, self._source, self._options, self._channels)
        if self.scores is not None:  # first, since not every model has them
            for part in self._lane.scores(*plane, self.card.digest):
                self._check_going_on()
                self.scores[:, *part.region.window] = part.scores
        for band in self._lane.segment(*plane, on_tile, self.card.digest):
            self.tally.add(band)
            if band.end_row < self._source.shape[1]:
                turn.after(band)

    def _check_going_on(self) -> None:
        if self._given_up:
            raise _shutting_down()


def _shutting_down() -> SegmentdError:
    return SegmentdError(Reason.SHUTTING_DOWN, "the daemon is stopping; send the plane again when it is back")


def check_range(field: str, value: int, low: int, high: int) -> None:
    """BAD_FIELD where a number of a request is out of its range."""
    if not low <= value <= high:
        raise bad_field(field, f"{value} must be {low} to {high}")


def check_postprocessing(field: str, name: str) -> str | None:
    """The name of a post-processing; None, the model's own, for an empty one; else BAD_FIELD."""
    names = [entry.name for entry in postprocessings()]
    if name and name not in names:
        raise bad_field(field, f"'{name}' must be one of {', '.join(names)}")
    return name or None


def check_marginal(field: str, options: SegmentOptions, postprocessing_field: str) -> None:
    """BAD_FIELD where marginals are wanted and nothing makes them."""
    if options.confidence == "marginal" and options.postprocessing != CRF:
        raise bad_field(field, f"needs {postprocessing_field} '{CRF}'")
