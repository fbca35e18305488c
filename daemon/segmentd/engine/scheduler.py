"""Who may compute when: a bounded number of planes in flight, fair between sources."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from segmentd.models.residency import Waiting, next_in_turn

PLANES_PER_LANE = 2


class Slot:
    """A slot of the scheduler that may be given back for a while; `release` may be called more than once."""

    def __init__(self, scheduler: Scheduler, source: str, priority: int, model: str = "") -> None:
        self._scheduler = scheduler
        self._model = model
        self._source = source
        self._priority = priority
        self._held = False

    async def acquire(self) -> None:
        """Wait for the slot."""
        await self._scheduler.acquire(self._source, self._priority, self._model)
        self._held = True

    def release(self) -> None:
        """Give the slot back."""
        if self._held:
            self._held = False
            self._scheduler.release()


@dataclass(eq=False)
class _Waiter:
    turn: asyncio.Future[None]
    model: str
    overtaken: int = 0


class Scheduler:
    """Hands out slots. Higher priority first; equal priorities take turns by source.

    Of those whose turn it could be, planes whose model is at hand go first, so that models stay on a device;
    see `segmentd.models.residency.next_in_turn`. Belongs to one event loop.

    Parameters
    ----------
    slots : int
        Planes in flight at most.

    Attributes
    ----------
    at_hand : callable
        Whether the file of a model is where it will be used; by default all are.
    """

    def __init__(self, slots: int = PLANES_PER_LANE) -> None:
        self.slots = slots
        self.in_flight = 0
        self.at_hand: Callable[[str], bool] = _always
        self._wanted: tuple[str, ...] = ()
        # priority -> source -> waiters; the source served last goes to the end.
        self._waiting: dict[int, dict[str, deque[_Waiter]]] = {}

    @property
    def waiting(self) -> int:
        """How many ask for a slot."""
        return sum(len(queue) for sources in self._waiting.values() for queue in sources.values())

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
        self._note_wanted()
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
            self._note_wanted()
            if not turn.done():
                return turn
        return None

    def _choose(self, sources: dict[str, deque[_Waiter]]) -> str:
        """The source whose first waiter is next."""
        heads = [queue[0] for queue in sources.values()]
        waiting = [Waiting(waiter.model, waiter.overtaken) for waiter in heads]
        chosen = next_in_turn(waiting, self.at_hand)
        for waiter in heads[:chosen]:
            waiter.overtaken += 1
        return list(sources)[chosen]

    def _note_wanted(self) -> None:
        by_priority = (self._waiting[priority].values() for priority in sorted(self._waiting, reverse=True))
        queues = (queue for queues in by_priority for queue in queues)
        self._wanted = tuple(waiter.model for queue in queues for waiter in queue if waiter.model)

    def _forget(self, turn: asyncio.Future[None], priority: int, source: str) -> None:
        sources = self._waiting.get(priority, {})
        queue = sources.get(source)
        waiter = next((one for one in queue or () if one.turn is turn), None)
        if queue is None or waiter is None:
            return
        queue.remove(waiter)
        self._note_wanted()
        if not queue:
            del sources[source]
        if not sources:
            del self._waiting[priority]


def _always(model: str) -> bool:
    return True
