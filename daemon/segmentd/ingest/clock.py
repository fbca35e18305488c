"""The clock that waiting is done by; tests bring their own."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds that never go back, and waiting by them."""

    def now(self) -> float:
        """Seconds since some point in the past."""

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait until the event is set, but not longer than `seconds`."""


class MonotonicClock:
    """The real one: a wrong date or a change of it delays nothing."""

    def now(self) -> float:
        """Seconds of the system's monotonic clock."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait until the event is set, but not longer than `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
