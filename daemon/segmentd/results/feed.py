"""The feed: subscriptions to the journal. A subscriber is a cursor, not a queue.

Each subscription reads the journal in small batches at its own pace and waits when it has read all. A
stalled subscriber therefore costs nothing, and one that falls behind what the journal keeps is told so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

from segmentd.errors import Reason, SegmentdError
from segmentd.records import ResultEvent
from segmentd.results.events import EventPage
from segmentd.results.journal import Journal
from segmentd.results.previews import News, Preview, Previews
from segmentd.results.recent import RecentPlanes

_BATCH = 64
_CURSOR = re.compile(r"([0-9a-f]{10})-(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing new up to this cursor."""

    cursor: str


class Feed:
    """Subscriptions to one journal, in one event loop.

    Parameters
    ----------
    journal : Journal
        Open; `notify` is called after each of its commits.

    Attributes
    ----------
    recent : RecentPlanes
        Pixels of what was published last, so that live subscribers get them without delay.
    previews : Previews
        Planes of images that are still in work.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.recent = RecentPlanes()
        self.previews = Previews(self.notify)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._closed = False
        self._reads: dict[tuple[asyncio.Event, int, str | None], asyncio.Task[EventPage]] = {}

    def cursor(self, number: int) -> str:
        """Return the cursor of a reader who has seen all events up to `number`."""
        return f"{self._journal.id}-{number}"

    def notify(self) -> None:
        """Wake the subscriptions: the journal has new events. May be called from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """End all subscriptions with SHUTTING_DOWN once they have passed on what is there.

        To be called in the event loop.
        """
        self._closed = True
        self._wake()

    async def subscribe(
        self,
        watch: str | None = None,
        cursor: str | None = None,
        start: Literal["new", "oldest"] = "new",
        heartbeat_seconds: float = 10.0,
        previews: bool = False,
    ) -> AsyncGenerator[ResultEvent | Heartbeat | Preview, None]:
        """Yield events in the order of the journal, each once, without end.

        The first item is a heartbeat: the subscriber is live and has a cursor. More follow when nothing
        was published for `heartbeat_seconds`; their cursor passes over other watches' events.

        Parameters
        ----------
        watch : str, optional
            Id of the only watch to hear of.
        cursor : str, optional
            Where to go on: the events after it follow. It decides over `start`.
        start : "new" or "oldest"
            Without a cursor: from now on, or from the oldest event kept.
        heartbeat_seconds : float
            Longest silence.
        previews : bool
            Yield also planes of images in work, as far as they are there; never after the image's events.

        Raises
        ------
        SegmentdError
            CURSOR_UNKNOWN; CURSOR_EXPIRED, also for a subscriber that fell too far behind, with
            `oldest_cursor` in the metadata; SHUTTING_DOWN.
        """
        self._loop = asyncio.get_running_loop()
        seen = await self._first_position(cursor, start)
        yield Heartbeat(self.cursor(seen))
        with self.previews.onlooker(watch) if previews else nullcontext(list) as news:
            async for item in self._follow(seen, watch, heartbeat_seconds, news):
                yield item

    async def _follow(
        self, seen: int, watch: str | None, heartbeat_seconds: float, news: News
    ) -> AsyncGenerator[ResultEvent | Heartbeat | Preview, None]:
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + heartbeat_seconds
        while True:
            changed, closed = self._changed, self._closed  # before reading, so that no change is missed
            shown = news()
            page = await self._read(seen, watch, changed)
            self._check_kept(seen, page)
            for preview in shown:
                yield preview
            for event in page.events:
                yield event
                heartbeat_at = loop.time() + heartbeat_seconds
            if len(page.events) == _BATCH:
                seen = page.events[-1].number
            else:
                seen = page.last
                if closed:
                    raise SegmentdError(
                        Reason.SHUTTING_DOWN,
                        "the daemon is shutting down. Connect again with the last cursor.",
                    )
                if not await _is_set(changed, heartbeat_at):
                    yield Heartbeat(self.cursor(seen))
                    heartbeat_at = loop.time() + heartbeat_seconds

    async def _read(self, seen: int, watch: str | None, changed: asyncio.Event) -> EventPage:
        """Read the next batch; subscribers at the same place share one read.

        Only reads begun since the last change are shared: an older one may not show what was announced.
        """
        key = (changed, seen, watch)
        task = self._reads.get(key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._journal.read, seen, _BATCH, watch))
            self._reads[key] = task
            task.add_done_callback(lambda _: self._reads.pop(key))
        return await asyncio.shield(task)  # one reader's end is not the others'

    async def _first_position(self, cursor: str | None, start: str) -> int:
        """Return the number of the last event that the subscriber does not want."""
        page = await asyncio.to_thread(self._journal.read, 0, 0)
        if cursor is None:
            return page.last if start == "new" else page.oldest - 1
        match = _CURSOR.fullmatch(cursor)
        if match is None or match[1] != self._journal.id or int(match[2]) > page.last:
            raise SegmentdError(
                Reason.CURSOR_UNKNOWN,
                "the cursor is not one of this daemon's journal, which may have been replaced. Subscribe "
                "again without a cursor, from the oldest event if none may be missed.",
                field="cursor",
            )
        self._check_kept(int(match[2]), page)
        return int(match[2])

    def _check_kept(self, seen: int, page: EventPage) -> None:
        """Refuse a position whose next event has been deleted."""
        if seen + 1 < page.oldest:
            oldest = self.cursor(page.oldest - 1)
            raise SegmentdError(
                Reason.CURSOR_EXPIRED,
                f"the events after the cursor are no longer kept. Go on from {oldest}, and list the "
                "segmentations or scan the results for what lies between.",
                field="cursor",
                oldest_cursor=oldest,
            )

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _is_set(event: asyncio.Event, deadline: float) -> bool:
    """Wait for an event; False if the deadline (in the loop's time) came first."""
    try:
        async with asyncio.timeout_at(deadline):
            await event.wait()
    except TimeoutError:
        return False
    return True
