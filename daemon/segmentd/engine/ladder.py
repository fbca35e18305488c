"""Decisions of a device lane: how much at once, and when to try again. Pure: told the time, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from segmentd.records import Region

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
GROW_SECONDS = 60.0
SMALLEST_TILE_PX = 64


class BackOff:
    """When to try again what failed: after 1 s, 2 s, 4 s, ... at most a minute.

    Attributes
    ----------
    reason : str
        Why it is not tried now, or was not before the last try; empty after it worked.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._wait = 0.0
        self._until = float("-inf")

    def failed(self, now: float, reason: str) -> None:
        """It did not work."""
        self.reason = reason
        self._wait = min(max(2 * self._wait, FIRST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
        self._until = now + self._wait

    def worked(self) -> None:
        """It worked: the next failure waits shortly again."""
        self.reason, self._wait = "", 0.0

    def may_try(self, now: float) -> bool:
        """Whether to try now."""
        return now >= self._until


class Fit:
    """How much of one model's work fits a device at once, as it has shown.

    Out of memory: half the batch, down to one tile; then half the tile; then nothing. A rung up again is
    tried when there was room for a minute, since others may have given theirs back.

    Parameters
    ----------
    max_batch : int
        Where to begin.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self.batch = max_batch
        self.tile_px: int | None = None
        self._changed = float("-inf")

    def shrink(self, now: float, cores: list[Region], may_cut: bool) -> bool:
        """Take the next rung down from a batch that did not fit; False where there is none.

        `may_cut` tells whether tiles may be made smaller without changing labels.
        """
        if self.fewer(now, len(cores)):
            return True
        half = max(cores[0].height, cores[0].width) // 2
        if not may_cut or half < SMALLEST_TILE_PX:
            return False
        self.tile_px = half
        return True

    def fewer(self, now: float, count: int) -> bool:
        """Take the next rung down from a batch of so many that did not fit; False from one alone."""
        self._changed = now
        if count > 1:
            self.batch = count // 2
        return count > 1

    def grow(self, now: float) -> None:
        """Take a rung up where the last change is long ago."""
        if now - self._changed < GROW_SECONDS:
            return
        if self.tile_px is not None:
            self.tile_px = None
        elif self.batch < self._max_batch:
            self.batch = min(2 * self.batch, self._max_batch)
        self._changed = now

    def take(self, left: deque[Region], may_cut: bool) -> list[Region]:
        """Take the next batch from the regions that are left, cut where they are too large."""
        taken: list[Region] = []
        while left and len(taken) < self.batch:
            core = left.popleft()
            if may_cut and self.tile_px is not None and max(core.height, core.width) > self.tile_px:
                left.extendleft(reversed(list(cut(core, self.tile_px))))
            else:
                taken.append(core)
        return taken


def cut(core: Region, edge: int) -> Iterator[Region]:
    """Parts of a region with at most `edge` pixels a side."""
    for y in range(0, core.height, edge):
        for x in range(0, core.width, edge):
            yield Region(core.y + y, core.x + x, min(edge, core.height - y), min(edge, core.width - x))
