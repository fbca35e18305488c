"""Who may compute when: a bounded number of planes in flight, fair between sources."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PLANES_PER_LANE = 2


class Slot:
    """A slot of the scheduler that may be given back for a while; `release` may be called more than once."""

    def __init__(self, scheduler: Scheduler, source: str, priority: int) -> None:
        self._scheduler = scheduler
        self._source = source
        self._priority = priority
        self._held = False

    async def acquire(self) -> None:
        """Wait for the slot."""
        await self._scheduler.acquire(self._source, self._priority)
        self._held = True

    def release(self) -> None:
        """Give the slot back."""
        if self._held:
            self._held = False
            self._scheduler.release()


class Scheduler:
    """Hands out slots. Higher priority first; equal priorities take turns by source.

    Belongs to one event loop.

    Parameters
    ----------
    slots : int
        Planes in flight at most.
    """

    def __init__(self, slots: int = PLANES_PER_LANE) -> None:
        self.slots = slots
        self.in_flight = 0
        # priority -> source -> waiters; the source served last goes to the end.
        self._waiting: dict[int, dict[str, deque[asyncio.Future[None]]]] = {}

    @property
    def waiting(self) -> int:
        """How many ask for a slot."""
        return sum(len(queue) for sources in self._waiting.values() for queue in sources.values())

    @asynccontextmanager
    async def slot(self, source: str, priority: int = 0) -> AsyncIterator[None]:
        """Hold a slot for the work of `source` (a watch's id, or a caller of the API)."""
        await self.acquire(source, priority)
        try:
            yield
        finally:
            self.release()

    async def acquire(self, source: str, priority: int = 0) -> None:
        """Wait for a slot; pair with `release`."""
        if self.in_flight < self.slots and not self._waiting:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(priority, {}).setdefault(source, deque())
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # the slot had just been handed over
            else:
                self._forget(turn, priority, source)
            raise

    def release(self) -> None:
        """Give the slot to the next in turn, or back."""
        turn = self._next()
        if turn is None:
            self.in_flight -= 1
        else:
            turn.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        while self._waiting:
            priority = max(self._waiting)
            sources = self._waiting[priority]
            source = next(iter(sources))
            queue = sources.pop(source)
            turn = queue.popleft()
            if queue:
                sources[source] = queue  # behind the others: they take turns
            if not sources:
                del self._waiting[priority]
            if not turn.done():
                return turn
        return None

    def _forget(self, turn: asyncio.Future[None], priority: int, source: str) -> None:
        sources = self._waiting.get(priority, {})
        queue = sources.get(source)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        if not queue:
            del sources[source]
        if not sources:
            del self._waiting[priority]
