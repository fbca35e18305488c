"""The last things learned, for any thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Memory(Generic[K, T]):
    """Keeps the last `size` values by their keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: OrderedDict[K, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> T | None:
        """Return what is known, None if nothing is."""
        with self._lock:
            return self._known.get(key)

    def keep(self, key: K, value: T) -> T:
        """Remember something; returns it."""
        with self._lock:
            self._known[key] = value
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        return value
