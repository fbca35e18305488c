"""Work that a cancellation must not leave half done.

A call can be cancelled more than once, and while it cleans up: gRPC tells that the caller has gone after the
end of what the caller sends. And a thread that is cancelled before it began never begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """As `asyncio.to_thread`, but a cancellation waits for the thread: it has files in hand, or cleans up."""
    thread = asyncio.ensure_future(asyncio.to_thread(work, *args, **options))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await end_of(thread)
        raise


async def end_of(work: asyncio.Future[Any]) -> None:
    """Wait until a task has ended, whatever it ended with, and however often this is cancelled meanwhile."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            cancelled = True
    if not work.cancelled():
        work.exception()  # so that it does not count as unseen
    if cancelled:
        raise asyncio.CancelledError
