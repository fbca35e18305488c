"""Why a watch takes up no more files, if it does not."""

from __future__ import annotations

import asyncio

from segmentd import telemetry
from segmentd.errors import SegmentdError
from segmentd.process.claims import Claim

_log = telemetry.get_logger(__name__)


class Hold:
    """The reason why a watch waits, or none; called with the next one, or "".

    Attributes
    ----------
    reason : str
        What it waits for; empty while it goes on.
    """

    def __init__(self, watch: str) -> None:
        self.reason = ""
        self._watch = watch
        self._going_on = asyncio.Event()
        self._going_on.set()

    def __call__(self, reason: str) -> None:
        """Take up no more files while there is a reason to wait."""
        if reason and reason != self.reason:
            _log.warning("watch waits", watch=self._watch, why=reason)
        self.reason = reason
        if reason:
            self._going_on.clear()
        else:
            self._going_on.set()

    async def over(self) -> None:
        """Wait until there is no reason to wait."""
        await self._going_on.wait()


async def claimed(claim: Claim, hold: Hold, seconds: float) -> None:
    """Have folders for ourselves, also one that was missing so far; tried every so many seconds."""
    while True:
        try:
            await asyncio.to_thread(claim.hold)
            return
        except SegmentdError as error:
            hold(error.message)
            await asyncio.sleep(seconds)
            hold("")
