"""Stage timers and counters: added to where the work is done, read when somebody asks."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from segmentd.telemetry.timeline import note

# Upper ends of buckets in seconds: from a tile to a file that takes minutes.
BOUNDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)


@dataclass(frozen=True, slots=True)
class StageTotal:
    """How often a stage ran, and for how many seconds in all.

    `buckets` counts those up to each of `BOUNDS` and above the one before, at last those above all.
    """

    count: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)


class Histogram:
    """Durations in buckets; whoever shares one between threads locks it."""

    __slots__ = ("_buckets", "_count", "_seconds")

    def __init__(self) -> None:
        self._count = 0
        self._seconds = 0.0
        self._buckets = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._count += 1
        self._seconds += seconds
        self._buckets[bisect_left(BOUNDS, seconds)] += 1

    def merge(self, other: Histogram) -> None:
        """Count what another one has counted, too."""
        self._count += other._count
        self._seconds += other._seconds
        self._buckets = [mine + theirs for mine, theirs in zip(self._buckets, other._buckets, strict=True)]

    def total(self) -> StageTotal:
        """All so far."""
        return StageTotal(self._count, self._seconds, tuple(self._buckets))


class _Running:
    """A stage that runs; a generator would take twice as long."""

    __slots__ = ("_meter", "_name", "_start")

    def __init__(self, meter: Meter, name: str) -> None:
        self._meter = meter
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        end = time.perf_counter()
        self._meter.observe(self._name, end - self._start)
        note(self._name, self._start, end)


@dataclass(slots=True)
class Meter:
    """Stage timers and counters; every method may be called from any thread."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stages: dict[str, Histogram] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Add the time that the block takes, also when it fails, to the stage `name`."""
        return _Running(self, name)

    def observe(self, name: str, seconds: float) -> None:
        """Add a time that was taken elsewhere to the stage `name`."""
        with self._lock:
            found = self._stages.get(name)
            if found is None:
                found = self._stages[name] = Histogram()
            found.add(seconds)

    def count(self, name: str, amount: int = 1) -> None:
        """Add `amount` to the counter `name`."""
        with self._lock:
            self._counts[name] += amount

    def stages(self) -> dict[str, StageTotal]:
        """Return the totals of all stages so far."""
        with self._lock:
            return {name: found.total() for name, found in self._stages.items()}

    def counts(self) -> dict[str, int]:
        """Return all counters."""
        with self._lock:
            return dict(self._counts)


class LastMinute:
    """How many images ended in the last minute, and how many of their pixels were segmented.

    Belongs to one event loop. `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Second, images, pixels; one entry for each second with news.
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=60)

    def add(self, pixels: int) -> None:
        """Note an image that ended."""
        now, images = int(self._clock()), 1
        if self._seconds and self._seconds[-1][0] == now:
            _, earlier, counted = self._seconds.pop()
            images, pixels = images + earlier, pixels + counted
        self._seconds.append((now, images, pixels))

    def totals(self) -> tuple[int, int]:
        """Return images and pixels of the last minute."""
        since = int(self._clock()) - 60
        recent = [entry for entry in self._seconds if entry[0] > since]
        return sum(entry[1] for entry in recent), sum(entry[2] for entry in recent)


METER = Meter()
stage = METER.stage
observe = METER.observe
count = METER.count
