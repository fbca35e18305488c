"""Whether the daemon gets on, and so whether the service manager hears from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from segmentd import telemetry
from segmentd.process.notify import Notifier

PINGS_PER_INTERVAL = 3
# A piece of work, a tile or a batch of them, may take so many of the manager's intervals.
PATIENCE_INTERVALS = 10

_log = telemetry.get_logger(__name__)


def gets_on(now: float, work_since: float | None, patience_seconds: float) -> bool:
    """Whether no piece of work hangs: `work_since` is when the oldest of those in work was begun."""
    return work_since is None or now - work_since <= patience_seconds


async def keep_telling(
    notifier: Notifier,
    work_since: Callable[[], float | None],
    status: Callable[[], str],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Ping the service manager until cancelled, but only while work gets on.

    It runs in the event loop, so a loop that hangs does not ping either.

    Parameters
    ----------
    notifier : Notifier
        Knows how often the manager wants to hear.
    work_since : callable
        When the oldest piece of work that is being done was begun (`clock`), None where there is none.
    status : callable
        The line for `systemctl status`.
    """
    interval = notifier.watchdog_seconds
    patience = PATIENCE_INTERVALS * interval if interval else float("inf")
    hanging = False
    while True:
        was_hanging, hanging = hanging, not gets_on(clock(), work_since(), patience)
        if hanging:
            stuck = f"a piece of work does not end; it was begun more than {patience:g} s ago"
            notifier.status(stuck)
            if not was_hanging:
                _log.error("the watchdog is not told any more", why=stuck)
        else:
            notifier.status(status())
            if interval:
                notifier.ping()
        await sleep(interval / PINGS_PER_INTERVAL if interval else 1.0)
