"""Who may compute when: a bounded number of planes in flight, fair between sources."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from segmentd.models.residency import Waiting, next_in_turn

PLANES_PER_LANE = 2
# Images in the middle of which others go first: each keeps a band in memory.
MOST_PAUSED = 4


@dataclass(eq=False)
class _Waiter:
    turn: asyncio.Future[None]
    model: str
    overtaken: int = 0


class Scheduler:
    """Hands out slots. Higher priority first; equal priorities take turns by source.

    Work that takes long gives way to others in its middle (`give_way`, see `segmentd.engine.slot`).
    Of those whose turn it could be, planes whose model is at hand go first, so that models stay on a device;
    see `segmentd.models.residency.next_in_turn`. Belongs to one event loop.

    Parameters
    ----------
    slots : int
        Planes in flight at most.

    Attributes
    ----------
    in_flight, waiting, paused : int
        Slots in use; how many ask for one; and how many of these began already and gave way.
    at_hand : callable
        Whether the file of a model is where it will be used; by default all are.
    """

    def __init__(self, slots: int = PLANES_PER_LANE) -> None:
        self.slots = slots
        self.in_flight = 0
        self.waiting = 0
        self.paused = 0
        self.at_hand: Callable[[str], bool] = _always
        self._wanted: tuple[str, ...] = ()
        # priority -> source -> waiters; the source served last goes to the end.
        self._waiting: dict[int, dict[str, deque[_Waiter]]] = {}

    def wanted(self) -> tuple[str, ...]:
        """Files of the models that planes wait for, by priority; may be called by any thread."""
        return self._wanted

    @asynccontextmanager
    async def slot(self, source: str, priority: int = 0, model: str = "") -> AsyncIterator[None]:
        """Hold a slot for the work of `source` (a watch's id, or a caller of the API)."""
        await self.acquire(source, priority, model)
        try:
            yield
        finally:
            self.release()

    async def acquire(self, source: str, priority: int = 0, model: str = "") -> None:
        """Wait for a slot to compute with the model of that file; pair with `release`."""
        if self.in_flight < self.slots and not self._waiting:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(priority, {}).setdefault(source, deque())
        queue.append(_Waiter(turn, model))
        await self._wait(turn, priority, source)

    def should_give_way(self, source: str, priority: int) -> bool:
        """Whether work that holds a slot should let others go first: another source, or a higher priority."""
        if self.paused >= MOST_PAUSED or not self._waiting:
            return False
        highest = max(self._waiting)
        others = any(name != source for name in self._waiting[highest])
        return highest > priority or (highest == priority and others)

    async def give_way(self, source: str, priority: int, model: str = "") -> None:
        """Hand the slot to the next in turn, if there is one who should go first, and wait for one again.

        What has begun goes on before its source begins anything else.
        """
        if not self.should_give_way(source, priority):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sources = self._waiting.setdefault(priority, {})
        queue = sources.pop(source, deque())
        queue.appendleft(_Waiter(turn, model))
        sources[source] = queue  # behind the others: it has had its turn
        self.paused += 1
        self.release()
        try:
            await self._wait(turn, priority, source)
        finally:
            self.paused -= 1

    async def _wait(self, turn: asyncio.Future[None], priority: int, source: str) -> None:
        self._note()
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
            source = self._choose(sources)
            queue = sources.pop(source)
            turn = queue.popleft().turn
            if queue:
                sources[source] = queue  # behind the others: they take turns
            if not sources:
                del self._waiting[priority]
            self._note()
            if not turn.done():
                return turn
        return None

    def _choose(self, sources: dict[str, deque[_Waiter]]) -> str:
        """The source whose first waiter is next."""
        queues = list(sources.values())
        heads = [queue[0] for queue in queues]
        waiting = [Waiting(queue[0].model, queue[0].overtaken, len(queue)) for queue in queues]
        chosen = next_in_turn(waiting, self.at_hand)
        for waiter in heads[:chosen]:
            waiter.overtaken += 1
        return list(sources)[chosen]

    def _note(self) -> None:
        """Have for other threads what they may ask."""
        by_priority = (self._waiting[priority].values() for priority in sorted(self._waiting, reverse=True))
        waiters = [waiter for queues in by_priority for queue in queues for waiter in queue]
        self.waiting = len(waiters)
        self._wanted = tuple(waiter.model for waiter in waiters if waiter.model)

    def _forget(self, turn: asyncio.Future[None], priority: int, source: str) -> None:
        sources = self._waiting.get(priority, {})
        queue = sources.get(source)
        waiter = next((one for one in queue or () if one.turn is turn), None)
        if queue is None or waiter is None:
            return
        queue.remove(waiter)
        self._note()
        if not queue:
            del sources[source]
        if not sources:
            del self._waiting[priority]


def _always(model: str) -> bool:
    return True
