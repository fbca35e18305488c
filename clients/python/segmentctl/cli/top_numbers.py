"""What `segmentctl top` works out from one or two answers of the daemon."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segmentd.v1.server_service_pb2 import Server
    from segmentd.v1.watch_service_pb2 import Watch

WINDOW_SECONDS = 60.0
KEPT_SPEEDS = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said at one moment."""

    server: Server
    watches: Sequence[Watch]

    @property
    def seconds(self) -> float:
        """When, on the daemon's own clock."""
        return self.server.uptime.seconds + self.server.uptime.nanos / 1e9


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a stage took: how often a second (0 if not known), mean, and quantiles in seconds."""

    name: str
    count: int
    rate: float
    mean: float
    median: float
    p99: float


class History:
    """The answers of the last minute, and speeds for a curve."""

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque()
        self.speeds: deque[float] = deque(maxlen=KEPT_SPEEDS)

    def add(self, answer: Answer) -> None:
        """Take the next answer; one of a daemon that has started anew lets go of those before."""
        last = self._answers[-1] if self._answers else None
        if last is not None and answer.seconds < last.seconds:
            self._answers.clear()
            self.speeds.clear()
        self._answers.append(answer)
        self.speeds.append(answer.server.megapixels_per_second)
        while len(self._answers) > 2 and answer.seconds - self._answers[1].seconds >= WINDOW_SECONDS:
            self._answers.popleft()

    @property
    def last(self) -> Answer:
        """The newest answer."""
        return self._answers[-1]

    @property
    def _first(self) -> Answer | None:
        """What to compare with; None where there is only one answer."""
        return self._answers[0] if len(self._answers) > 1 else None

    @property
    def window(self) -> float:
        """Seconds that `timings` and `load` are about; 0 for all the time since the daemon started."""
        return 0.0 if self._first is None else self.last.seconds - self._first.seconds

    def timings(self) -> list[Timing]:
        """The stages that were measured within the window, those that took most time first."""
        before = {stage.name: stage for stage in self._first.server.stages} if self._first else {}
        bounds = list(self.last.server.stage_bounds_seconds)
        found = []
        for stage in self.last.server.stages:
            earlier = before.get(stage.name)
            buckets = list(stage.bucket_counts)
            seconds, count = _seconds(stage), stage.count
            if earlier is not None:
                buckets = [now - then for now, then in zip(buckets, earlier.bucket_counts, strict=True)]
                seconds, count = seconds - _seconds(earlier), count - earlier.count
            if count > 0:
                quantiles = [quantile(share, buckets, bounds) for share in (0.5, 0.99)]
                rate = count / self.window if self.window else 0.0
                found.append((seconds, Timing(stage.name, count, rate, seconds / count, *quantiles)))
        return [timing for _, timing in sorted(found, key=lambda item: -item[0])]

    def load(self, device: str) -> float | None:
        """Seconds of work of a device for each second of the window; None where there is no window."""
        if self._first is None or self.window <= 0:
            return None
        return (_work(self.last, device) - _work(self._first, device)) / self.window


def quantile(share: float, buckets: Sequence[int], bounds: Sequence[float]) -> float:
    """Estimate a quantile from a histogram, evenly within the bucket, as Prometheus does.

    Parameters
    ----------
    share : float
        Which one, 0 to 1.
    buckets : sequence of int
        How many fell into each; one more than there are bounds.
    bounds : sequence of float
        Upper ends. What lies above all of them counts as the last one.
    """
    total = sum(buckets)
    wanted, below, lower = share * total, 0, 0.0
    for number, upper in zip(buckets, bounds, strict=False):
        if number and below + number >= wanted:
            return lower + (upper - lower) * (wanted - below) / number
        below, lower = below + number, upper
    return bounds[-1] if total and bounds else 0.0


def _seconds(stage: Server.Stage) -> float:
    return float(stage.duration.seconds) + stage.duration.nanos / 1e9


def _work(answer: Answer, name: str) -> float:
    durations = (device.work_duration for device in answer.server.devices if device.name == name)
    return sum(one.seconds + one.nanos / 1e9 for one in durations)
