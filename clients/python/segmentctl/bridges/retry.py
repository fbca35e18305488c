"""Trying again what a daemon could not take right now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from segmentctl.errors import UNREACHABLE, DaemonError

PASSING = frozenset({UNREACHABLE, "SHUTTING_DOWN", "DEVICE_BUSY"})
"""Reasons of a `DaemonError` that may be gone a moment later."""

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0  # seconds

Answer = TypeVar("Answer")


def patiently(call: Callable[[], Answer], patience: float, stop: threading.Event) -> Answer:
    """Call again, with growing delays, while the reason of the failure is one of `PASSING`.

    Parameters
    ----------
    call : callable
        What to try.
    patience : float
        Seconds after which the failure is final.
    stop : Event
        Ends waiting early; the last failure is raised.

    Raises
    ------
    DaemonError
        The last failure.
    """
    last_attempt = time.monotonic() + patience
    delay = _FIRST_DELAY
    while True:
        try:
            return call()
        except DaemonError as error:
            if error.reason not in PASSING or time.monotonic() >= last_attempt or stop.wait(delay):
                raise
        delay = min(2 * delay, _LONGEST_DELAY)
