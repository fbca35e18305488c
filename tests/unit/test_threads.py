"""Cancellations do not leave work half done, however often they come."""

from __future__ import annotations

import asyncio
import threading

import pytest

from segmentd.threads import end_of, to_its_end


async def test_what_a_thread_returns_or_raises_comes_back() -> None:
    assert await to_its_end(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await to_its_end(divmod, 7, 0)


async def test_a_cancellation_waits_for_the_thread_also_when_it_comes_again() -> None:
    go, begun, done = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        go.wait(60)
        done.append(True)

    caller = asyncio.create_task(to_its_end(work))
    await asyncio.to_thread(begun.wait, 60)
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
        assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done


async def test_a_thread_that_has_not_begun_is_run_too() -> None:
    go, ran = threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    workers = [loop.run_in_executor(None, go.wait, 60) for _ in range(64)]  # more than the pool has threads
    caller = asyncio.create_task(to_its_end(ran.set))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    assert not ran.is_set()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ran.is_set()
    await asyncio.gather(*workers)


async def test_an_end_is_waited_for_and_what_failed_is_not_raised() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    await end_of(asyncio.ensure_future(fails()))
    cancelled = asyncio.ensure_future(asyncio.sleep(60))
    cancelled.cancel()
    await end_of(cancelled)
    assert cancelled.cancelled()
