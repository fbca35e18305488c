"""Who may compute when: a bounded number of planes in flight, fair between sources.

Where small planes share the batches of a device, a small plane takes a part of a slot only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from segmentd.models.residency import Waiting, next_in_turn

PLANES_PER_LANE = 2
# One more where planes are small: one is opened while as many as fill two share batches.
PLANES_PER_DEVICE = 3
# A plane of so many pixels takes a whole slot: as many as a batch of a card holds.
FULL_PLANE_PIXELS = 1 << 22
# A whole slot in the smallest parts that are handed out.
WHOLE = 16
# However small: each has a thread of its own.
MOST_IN_FLIGHT = 40
# Images in the middle of which others go first: each keeps a band in memory.
MOST_PAUSED = 4


@dataclass(eq=False)
class _Waiter:
    turn: asyncio.Future[None]
    model: str
    parts: int
    overtaken: int = 0


class Scheduler:
    """Hands out slots. Higher priority first; equal priorities take turns by source.

    Work that takes long gives way to others in its middle (`give_way`, see `segmentd.engine.slot`).
    Of those whose turn it could be, planes whose model is at hand go first, so that models stay on a device;
    see `segmentd.models.residency.next_in_turn`. Belongs to one event loop.

    Parameters
    ----------
    slots : int
        Planes of full size in flight at most.

    Attributes
    ----------
    in_flight, waiting, paused : int
        Planes in flight; how many ask for a slot; and how many of these began already and gave way.
    shared : bool
        Whether small planes take parts of slots, so that more of them are in flight; by default none do.
    at_hand : callable
        Whether the file of a model is where it will be used; by default all are.
    """

    def __init__(self, slots: int = PLANES_PER_LANE) -> None:
        self.slots = slots
        self.in_flight = 0
        self.waiting = 0
        self.paused = 0
        self.at_hand: Callable[[str], bool] = _always
        self.shared = False
        self._used = 0  # parts of slots
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

    def parts_of(self, pixels: int | None) -> int:
        """How much of a slot a plane takes: all if its size is not known, or if slots are not shared."""
        if pixels is None or not self.shared:
            return WHOLE
        return min(WHOLE, max(1, -(-WHOLE * pixels // FULL_PLANE_PIXELS)))

    async def acquire(self, source: str, priority: int = 0, model: str = "", parts: int = WHOLE) -> None:
        """Wait for (parts of) a slot to compute with the model of that file; pair with `release`."""
        if not self._waiting and self._has_room(parts):
            self._begin(parts)
            return
        waiter = _Waiter(asyncio.get_running_loop().create_future(), model, parts)
        self._waiting.setdefault(priority, {}).setdefault(source, deque()).append(waiter)
        await self._wait(waiter, priority, source)

    def resize(self, before: int, after: int) -> None:
        """A plane in flight turns out to take other parts of its slot than was thought."""
        self._used += after - before
        self._hand_over()

    def should_give_way(self, source: str, priority: int) -> bool:
        """Whether work that holds a slot should let others go first: another source, or a higher priority."""
        if self.paused >= MOST_PAUSED or not self._waiting:
            return False
        highest = max(self._waiting)
        others = any(name != source for name in self._waiting[highest])
        return highest > priority or (highest == priority and others)

    async def give_way(self, source: str, priority: int, model: str = "", parts: int = WHOLE) -> None:
        """Hand the slot to the next in turn, if there is one who should go first, and wait for one again.

        What has begun goes on before its source begins anything else.
        """
        if not self.should_give_way(source, priority):
            return
        waiter = _Waiter(asyncio.get_running_loop().create_future(), model, parts)
        sources = self._waiting.setdefault(priority, {})
        queue = sources.pop(source, deque())
        queue.appendleft(waiter)
        sources[source] = queue  # behind the others: it has had its turn
        self.paused += 1
        self.release(parts)
        try:
            await self._wait(waiter, priority, source)
        finally:
            self.paused -= 1

    async def _wait(self, waiter: _Waiter, priority: int, source: str) -> None:
        self._note()
        turn = waiter.turn
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(waiter.parts)  # the slot had just been handed over
            else:
                self._forget(turn, priority, source)
                self._hand_over()  # it may have been too large for what is free
            raise

    def release(self, parts: int = WHOLE) -> None:
        """Give the slot to the next in turn, or back."""
        self.in_flight -= 1
        self._used -= parts
        self._hand_over()

    def _has_room(self, parts: int) -> bool:
        if self.shared and self.in_flight >= MOST_IN_FLIGHT:
            return False
        return self._used + parts <= WHOLE * self.slots

    def _begin(self, parts: int) -> None:
        self.in_flight += 1
        self._used += parts

    def _hand_over(self) -> None:
        """Give what is free to those whose turn it is; nobody goes past who is too large for it."""
        while self._waiting:
            priority = max(self._waiting)
            sources = self._waiting[priority]
            source, overtaken = self._choose(sources)
            waiter = sources[source][0]
            if not waiter.turn.done() and not self._has_room(waiter.parts):
                break
            for other in overtaken:
                other.overtaken += 1
            queue = sources.pop(source)
            queue.popleft()
            if queue:
                sources[source] = queue  # behind the others: they take turns
            if not sources:
                del self._waiting[priority]
            if not waiter.turn.done():
                self._begin(waiter.parts)
                waiter.turn.set_result(None)
        self._note()

    def _choose(self, sources: dict[str, deque[_Waiter]]) -> tuple[str, list[_Waiter]]:
        """The source whose first waiter is next, and the waiters that it overtakes."""
        queues = list(sources.values())
        waiting = [Waiting(queue[0].model, queue[0].overtaken, len(queue)) for queue in queues]
        chosen = next_in_turn(waiting, self.at_hand)
        return list(sources)[chosen], [queue[0] for queue in queues[:chosen]]

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
