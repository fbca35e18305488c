"""Holding a slot of the scheduler, also in the middle of work that takes long."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Future

from segmentd.engine.scheduler import Scheduler
from segmentd.engine.segmenter import BandResult
from segmentd.errors import Reason, SegmentdError


class Slot:
    """A slot of the scheduler that may be given back for a while; `release` may be called more than once.

    `pixels` are those of the plane, where they are known already; else see `note_size`.
    """

    def __init__(
        self, scheduler: Scheduler, source: str, priority: int, model: str = "", pixels: int | None = None
    ) -> None:
        self._scheduler = scheduler
        self._model = model
        self._source = source
        self._priority = priority
        self._parts = scheduler.parts_of(pixels)
        self._held = False

    async def acquire(self) -> None:
        """Wait for the slot."""
        await self._scheduler.acquire(self._source, self._priority, self._model, self._parts)
        self._held = True

    def note_size(self, pixels: int) -> None:
        """The planes have so many pixels: small ones leave room in the slot for others."""
        parts = self._scheduler.parts_of(pixels)
        if self._held and parts != self._parts:
            before, self._parts = self._parts, parts
            self._scheduler.resize(before, parts)

    def release(self) -> None:
        """Give the slot back."""
        if self._held:
            self._held = False
            self._scheduler.release(self._parts)

    @property
    def contended(self) -> bool:
        """Whether anybody waits for a slot; may be asked from any thread."""
        return self._scheduler.waiting > 0

    async def give_way(self) -> None:
        """Let others go first whose turn it is, and have the slot again."""
        if self._held:
            self._held = False
            await self._scheduler.give_way(self._source, self._priority, self._model, self._parts)
            self._held = True


class Turn:
    """Lets others go first in the middle of an image; called by the thread that computes it.

    Parameters
    ----------
    slot : Slot
        Held.
    loop : asyncio.AbstractEventLoop
        That of the slot.

    Attributes
    ----------
    quantum_pixels, quantum_seconds
        How much is computed before others may go first: most images end before.
    """

    quantum_pixels = 1 << 23
    quantum_seconds = 2.0

    def __init__(self, slot: Slot, loop: asyncio.AbstractEventLoop) -> None:
        self._slot = slot
        self._loop = loop
        self._pixels, self._seconds = 0, 0.0
        self._ended = False
        self._waiting: Future[None] | None = None

    def note_size(self, pixels: int) -> None:
        """As `Slot.note_size`."""
        self._loop.call_soon_threadsafe(self._slot.note_size, pixels)

    def after(self, band: BandResult) -> None:
        """Take note of a strip that is computed; waits while others go first.

        Raises
        ------
        SegmentdError
            SHUTTING_DOWN after `end`.
        """
        self._pixels += band.labels.size
        self._seconds += band.compute_seconds
        used = self._pixels >= self.quantum_pixels or self._seconds >= self.quantum_seconds
        if not used or not self._slot.contended:
            return
        self._pixels, self._seconds = 0, 0.0
        self._waiting = asyncio.run_coroutine_threadsafe(self._slot.give_way(), self._loop)
        if self._ended:
            self._waiting.cancel()
        try:
            self._waiting.result()
        except CancelledError:
            raise SegmentdError(Reason.SHUTTING_DOWN, "the work was given up") from None

    def end(self) -> None:
        """Wait no more: nobody wants the image any longer."""
        self._ended = True
        if self._waiting is not None:
            self._waiting.cancel()
