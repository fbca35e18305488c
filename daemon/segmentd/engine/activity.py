"""Pieces of work that are being done, so that one which hangs is noticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Activity:
    """The pieces in work of one lane; may be used from any thread.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: dict[object, float] = {}

    @contextmanager
    def piece(self) -> Iterator[None]:
        """The block is one piece of work."""
        key = object()
        with self._lock:
            self._begun[key] = self._clock()
        try:
            yield
        finally:
            with self._lock:
                del self._begun[key]

    def oldest(self) -> float | None:
        """When the piece that has been in work longest was begun; None when there is none."""
        with self._lock:
            return min(self._begun.values(), default=None)
