from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import aclosing
from typing import Any

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.records import ResultEvent
from segmentd.results.events import EventPage
from segmentd.results.feed import Feed, Heartbeat
from segmentd.results.journal import Journal

NEVER = 1e6


@pytest.fixture
def feed(journal: Journal) -> Feed:
    return Feed(journal)


async def numbers(feed: Feed, count: int, **options: Any) -> list[int]:
    """The numbers of the first `count` events of a subscription."""
    found: list[int] = []
    async with aclosing(feed.subscribe(heartbeat_seconds=NEVER, **options)) as items:
        async for item in items:
            if isinstance(item, ResultEvent):
                found.append(item.number)
            if len(found) == count:
                break
    return found


async def first_fault(feed: Feed, **options: Any) -> SegmentdError:
    with pytest.raises(SegmentdError) as caught:
        async with aclosing(feed.subscribe(**options)) as items:
            await anext(items)
    return caught.value


async def test_a_new_subscriber_gets_a_cursor_at_once_and_then_what_comes(
    journal: Journal, feed: Feed, publish: Any
) -> None:
    publish(2)
    async with aclosing(feed.subscribe(heartbeat_seconds=NEVER)) as items:
        assert await anext(items) == Heartbeat(f"{journal.id}-2")
        (event,) = publish()
        feed.notify()
        assert await anext(items) == event


async def test_history_is_read_from_the_oldest_event_or_after_a_cursor(
    journal: Journal, feed: Feed, publish: Any
) -> None:
    publish(5)
    journal.retain(max_events=4)
    assert await numbers(feed, 4, start="oldest") == [2, 3, 4, 5]
    assert await numbers(feed, 2, cursor=feed.cursor(3)) == [4, 5]
    assert await numbers(feed, 4, cursor=feed.cursor(1)) == [2, 3, 4, 5]


async def test_a_long_history_comes_whole(feed: Feed, publish: Any) -> None:
    publish(200)
    assert await numbers(feed, 200, start="oldest") == list(range(1, 201))


async def test_only_one_watch_is_heard_and_heartbeats_pass_over_the_others(feed: Feed, publish: Any) -> None:
    publish(100, watch="v")
    publish(1, watch="w")
    publish(100, watch="v")
    assert await numbers(feed, 1, start="oldest", watch="w") == [101]
    items = feed.subscribe("w", start="oldest", heartbeat_seconds=0)
    async with aclosing(items):
        found = [await anext(items) for _ in range(4)]
    assert found[0] == Heartbeat(feed.cursor(0))
    assert isinstance(found[1], ResultEvent)
    assert found[2:] == [Heartbeat(feed.cursor(201))] * 2


@pytest.mark.parametrize("number", ["", "-1", "01", "x", "3", "1" * 30, "0\n"])
async def test_a_cursor_of_no_event_is_unknown(
    journal: Journal, feed: Feed, publish: Any, number: str
) -> None:
    publish(2)
    fault = await first_fault(feed, cursor=f"{journal.id}-{number}")
    assert fault.reason == Reason.CURSOR_UNKNOWN
    assert fault.metadata["field"] == "cursor"


async def test_a_cursor_of_another_journal_is_unknown(feed: Feed) -> None:
    assert (await first_fault(feed, cursor="0123456789-0")).reason == Reason.CURSOR_UNKNOWN
    assert (await first_fault(feed, cursor="")).reason == Reason.CURSOR_UNKNOWN


async def test_a_cursor_too_old_is_told_the_oldest_that_works(
    journal: Journal, feed: Feed, publish: Any
) -> None:
    publish(5)
    journal.retain(max_events=2)
    fault = await first_fault(feed, cursor=feed.cursor(2))
    assert fault.reason == Reason.CURSOR_EXPIRED
    assert await numbers(feed, 2, cursor=fault.metadata["oldest_cursor"]) == [4, 5]
    journal.retain(max_events=0)
    fault = await first_fault(feed, cursor=feed.cursor(4))
    assert fault.metadata["oldest_cursor"] == feed.cursor(5)


async def test_a_subscriber_that_falls_behind_what_is_kept_is_told(
    journal: Journal, feed: Feed, publish: Any
) -> None:
    async with aclosing(feed.subscribe(heartbeat_seconds=NEVER)) as items:
        await anext(items)
        publish(3)
        journal.retain(max_events=1)
        feed.notify()
        with pytest.raises(SegmentdError) as caught:
            await anext(items)
    assert caught.value.reason == Reason.CURSOR_EXPIRED
    assert caught.value.metadata["oldest_cursor"] == feed.cursor(2)


async def test_nothing_is_lost_or_repeated_between_history_and_live(feed: Feed, publish: Any) -> None:
    """A writer goes on in its thread while subscribers start, stop and resume."""
    total = 300
    publish(20)

    def write() -> None:
        for size in itertools.cycle((1, 3, 7)):
            last = publish(size)[-1].number
            feed.notify()
            if last >= total:
                break

    writer = threading.Thread(target=write)

    async def resume_every(step: int) -> list[int]:
        found = await numbers(feed, step, start="oldest")
        while len(found) < total:
            found += await numbers(feed, min(step, total - len(found)), cursor=feed.cursor(found[-1]))
        return found

    subscribers = [asyncio.create_task(resume_every(step)) for step in (1, 13, total)]
    await asyncio.sleep(0)
    writer.start()
    assert await asyncio.gather(*subscribers) == [list(range(1, total + 1))] * 3
    await asyncio.to_thread(writer.join)


async def test_an_event_between_reading_and_waiting_is_not_missed(
    journal: Journal, feed: Feed, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = journal.read

    def read_then_publish(after: int, limit: int, watch: str | None = None) -> EventPage:
        page = read(after, limit, watch)
        if limit > 0 and page.last == 0:
            publish()
            feed.notify()
        return page

    monkeypatch.setattr(journal, "read", read_then_publish)
    async with asyncio.timeout(10):
        assert await numbers(feed, 1) == [1]


async def test_subscribers_at_the_same_place_share_a_read_and_survive_each_other(
    journal: Journal, feed: Feed, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = journal.read, []
    loop, reading, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow_read(after: int, limit: int, watch: str | None = None) -> EventPage:
        reads.append(after)
        loop.call_soon_threadsafe(reading.set)
        assert go_on.wait(10)
        return read(after, limit, watch)

    (event,) = publish()
    leaving, staying = (feed.subscribe(start="oldest", heartbeat_seconds=NEVER) for _ in range(2))
    await anext(leaving)
    await anext(staying)
    monkeypatch.setattr(journal, "read", slow_read)
    waiting = [asyncio.ensure_future(anext(items)) for items in (leaving, staying)]
    await reading.wait()
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    go_on.set()
    assert await waiting[1] == event
    assert waiting[0].cancelled()
    assert reads == [0]
    await staying.aclose()


async def test_closing_passes_on_what_is_there_and_ends_all(feed: Feed, publish: Any) -> None:
    async def read_to_the_end() -> tuple[list[int], Reason]:
        found = []
        try:
            async for item in feed.subscribe(start="oldest", heartbeat_seconds=NEVER):
                found += [item.number] if isinstance(item, ResultEvent) else []
                started.release()
        except SegmentdError as error:
            return found, error.reason
        raise AssertionError

    started = asyncio.Semaphore(0)
    readers = [asyncio.create_task(read_to_the_end()) for _ in range(2)]
    for _ in readers:
        await started.acquire()
    publish(2)
    feed.close()
    assert await asyncio.gather(*readers) == [([1, 2], Reason.SHUTTING_DOWN)] * 2
    late = feed.subscribe(heartbeat_seconds=NEVER)
    assert isinstance(await anext(late), Heartbeat)
    with pytest.raises(SegmentdError) as caught:
        await anext(late)
    assert caught.value.reason == Reason.SHUTTING_DOWN


async def test_a_stalled_subscriber_delays_nobody(feed: Feed, publish: Any) -> None:
    async with aclosing(feed.subscribe(start="oldest", heartbeat_seconds=NEVER)) as stalled:
        await anext(stalled)
        publish(150)
        feed.notify()
        assert await numbers(feed, 150, start="oldest") == list(range(1, 151))
        assert [(await anext(stalled)).number for _ in range(150)] == list(range(1, 151))  # type: ignore[union-attr]


def test_a_notice_without_subscribers_or_after_the_loop_is_harmless(feed: Feed, publish: Any) -> None:
    feed.notify()
    publish()
    assert asyncio.run(numbers(feed, 1, start="oldest")) == [1]
    feed.notify()
