"""Until when a caller wants an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.protobuf.duration_pb2 import Duration

from segmentd import telemetry
from segmentd.errors import Reason, SegmentdError
from segmentd.rpc.faults import bad_field

LONGEST_SECONDS = 7 * 86_400


class Deadline:
    """A moment that lies so many seconds ahead; never without them."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        """Whether it is over; may be asked from any thread."""
        return self._end is not None and time.monotonic() >= self._end

    def check(self) -> None:
        """Raise DEADLINE_EXPIRED if it is over."""
        if self.passed:
            telemetry.count("expired_planes")
            raise SegmentdError(
                Reason.DEADLINE_EXPIRED,
                f"the plane was not done within the {self._seconds:g} seconds that its caller gave it; "
                "give it more time, or a higher priority",
            )

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """End what the block waits for with DEADLINE_EXPIRED when it is over."""
        left = None if self._end is None else max(0.0, self._end - time.monotonic())
        try:
            async with asyncio.timeout(left):
                yield
        except TimeoutError:
            self.check()
            raise


def deadline_of(duration: Duration | None, field: str) -> Deadline:
    """The deadline that a field gives, from now on; BAD_FIELD where it is out of its range."""
    if duration is None:
        return Deadline()
    seconds = duration.seconds + duration.nanos / 1e9
    if not 0 < seconds <= LONGEST_SECONDS:
        raise bad_field(field, f"{seconds:g} s must be more than 0 and at most 7 days")
    return Deadline(seconds)
