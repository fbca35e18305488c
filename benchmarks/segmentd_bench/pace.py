"""Does the daemon keep up with the camera? Judged by whether waiting times grow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_FRAMES = 8
NOTABLE_GROWTH = 0.5  # of the waiting time at the beginning: less is noise
_TICK_S = 1e-9


@dataclass(frozen=True)
class Pace:
    """How a series of frames went.

    Attributes
    ----------
    falls_behind : bool or None
        Whether the daemon was slower than the camera; None if there are too few frames to tell.
    growth_s : float
        By how much a frame at the end waited longer than one at the beginning, in seconds.
    backlog : int
        Frames that were not back when the last one was closed, that one included.
    written_per_s, returned_per_s : float
        Frames a second that the camera wrote and that came back.
    """

    falls_behind: bool | None
    growth_s: float
    backlog: int
    written_per_s: float
    returned_per_s: float

    def __str__(self) -> str:
        if self.falls_behind is None:
            return f"too few frames to tell whether the daemon keeps up; ask for at least {FEWEST_FRAMES}"
        if not self.falls_behind:
            return f"the daemon keeps up with {self.written_per_s:.3g} frames/s"
        return (
            f"THE DAEMON FALLS BEHIND: {self.written_per_s:.3g} frames/s were written, it sustains "
            f"{self.returned_per_s:.3g}; the wait grew by {self.growth_s:.2f} s, {self.backlog} frames were "
            "waiting at the end"
        )


def judge(closed: Sequence[float], complete: Sequence[float]) -> Pace:
    """Judge by when frames were closed and when each was complete at the subscriber (seconds).

    A daemon that is too slow lets the wait grow from frame to frame. It falls behind if the last
    quarter of the frames waited longer than the first, by more than the time between two frames and by
    more than noise.
    """
    waits = [end - start for start, end in zip(closed, complete, strict=True)]
    backlog = sum(end > closed[-1] for end in complete)
    if len(waits) < 2:
        return Pace(None, 0.0, backlog, 0.0, 0.0)
    intervals = len(waits) - 1
    written_s = max(closed[-1] - closed[0], _TICK_S)
    returned_s = max(max(complete) - min(complete), _TICK_S)
    quarter = max(1, len(waits) // 4)
    first, last = statistics.median(waits[:quarter]), statistics.median(waits[-quarter:])
    growth_s = last - first
    falls_behind = growth_s > max(written_s / intervals, NOTABLE_GROWTH * first)
    return Pace(
        falls_behind if len(waits) >= FEWEST_FRAMES else None,
        growth_s,
        backlog,
        intervals / written_s,
        intervals / returned_s,
    )
