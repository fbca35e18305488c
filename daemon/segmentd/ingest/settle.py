"""Decides which files are complete. Pure: told what was seen and when, it says what to do.

A file is complete when its structure is closed (everything it refers to lies inside it) and either its
writer was seen to close it, or it has not changed for `settle_seconds`. A file whose structure stays open
for `give_up_seconds` without a change is given up; so long, too, is waited for a writer who is known to have
the file open still (it may have been given its full size before its pixels), and for one who announced
changes in the file itself. A file that changes starts anew.

Times are seconds of any clock that never goes back.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from segmentd.ingest.verdict import Structure, Verdict
from segmentd.records import Fault, FilePart, FileStamp

CLOSES_REMEMBERED = 4096
CLOSED_WITHIN_SECONDS = 0.5  # a writer who has the file open is looked for no more often


@dataclass(frozen=True, slots=True)
class Check:
    """Look at the structure of this file now and answer with `judged` (or `gone`)."""

    path: bytes
    stamp: FileStamp


@dataclass(frozen=True, slots=True)
class Ready:
    """The file is complete, since `complete_time`; `changed_time` is when it was last seen to change."""

    path: bytes
    stamp: FileStamp
    complete_time: float
    changed_time: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The file will not be read unless it changes; `fault` says why."""

    path: bytes
    stamp: FileStamp
    complete_time: float
    fault: Fault
    changed_time: float = field(default=0.0, compare=False)


@dataclass(slots=True)
class _File:
    """What is known of one file; `due` is when to check it, None while a check is under way."""

    stamp: FileStamp
    since: float
    closed_at: float | None
    due: float | None
    # Of an image in several files: the others, and when the last of them was closed, if all were.
    parts: tuple[FilePart, ...] = ()
    parts_closed_at: float | None = None


class Settle:
    """The files that are not complete yet.

    Parameters
    ----------
    settle_seconds : float
        How long a file must not have changed when nobody was seen to close it.
    give_up_seconds : float
        How long a file with an open structure is waited for after its last change.
    """

    def __init__(self, settle_seconds: float, give_up_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._give_up_seconds = max(give_up_seconds, settle_seconds)
        self._files: dict[bytes, _File] = {}
        self._queue: list[tuple[float, int, bytes]] = []
        # By stamp, not by path: a file that was closed and then renamed into place is complete, too.
        self._closes: OrderedDict[FileStamp, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, path: object) -> bool:
        return path in self._files

    def paths(self) -> Iterator[bytes]:
        """All of them, those first that have been here longest."""
        return iter(self._files)

    def sighted(self, path: bytes, stamp: FileStamp, now: float) -> None:
        """Take note that a file was there with this stamp."""
        closed_at = self._closes.get(stamp)
        file = self._files.get(path)
        if file is None or file.stamp != stamp:
            self._files[path] = file = _File(stamp, now, closed_at, None)
            self._schedule(path, file, now if closed_at is not None else now + self._settle_seconds)
        elif file.closed_at is None and closed_at is not None:
            file.closed_at = closed_at
            if file.due is not None:
                self._schedule(path, file, now)

    def closed(self, stamp: FileStamp, now: float) -> None:
        """Take note that the writer of the file with this stamp closed it; tell before `sighted`."""
        self._closes[stamp] = now
        self._closes.move_to_end(stamp)
        if len(self._closes) > CLOSES_REMEMBERED:
            self._closes.popitem(last=False)

    def gone(self, path: bytes) -> None:
        """Take note that a file is not there any more."""
        self._files.pop(path, None)

    def hurry(self, path: bytes, now: float) -> None:
        """Have a file looked at now, unless it is just being looked at."""
        file = self._files.get(path)
        if file is not None and file.due is not None:
            self._schedule(path, file, now)

    def put_off(self, path: bytes, until: float) -> None:
        """Do not look at a file that `due` told of before that time."""
        if path in self._files:
            self._schedule(path, self._files[path], until)

    def due(self, now: float, limit: int) -> list[Check]:
        """Return up to `limit` files to look at now: those that wait longest first, then older files."""
        checks: list[Check] = []
        while self._queue and self._queue[0][0] <= now and len(checks) < limit:
            due, _, path = heapq.heappop(self._queue)
            file = self._files.get(path)
            if file is not None and file.due == due:
                file.due = None
                checks.append(Check(path, file.stamp))
        return checks

    def wake_at(self) -> float | None:
        """Return when `due` will next have something to say, None if never."""
        while self._queue:
            due, _, path = self._queue[0]
            file = self._files.get(path)
            if file is not None and file.due == due:
                return due
            heapq.heappop(self._queue)
        return None

    def judged(
        self, check: Check, stamp: FileStamp, structure: Structure, now: float, is_open: bool = False
    ) -> Ready | GiveUp | None:
        """Take the answer to a `Check`: structure and stamp then, and whether a writer has the file open."""
        path = check.path
        file = self._files.get(path)
        if file is None or file.stamp != check.stamp:
            return None  # it went away, or changed, while it was looked at
        if stamp != file.stamp:
            self.sighted(path, stamp, now)
            return None
        if structure.verdict is Verdict.PART:
            self._schedule(path, file, now + self._give_up_seconds)
            return None
        self._note_parts(file, structure.parts, now)
        quiet_at, end_at = file.since + self._settle_seconds, file.since + self._give_up_seconds
        complete_at = end_at if is_open or structure.announced_changes else quiet_at
        closed_at = None if structure.announced_changes else _closed_at(file)
        if structure.verdict is Verdict.CLOSED and (closed_at is not None or now >= complete_at):
            del self._files[path]
            return Ready(path, stamp, now if closed_at is None else closed_at, file.since)
        if now < quiet_at:
            self._schedule(path, file, quiet_at)
        elif structure.fault is not None and (
            now >= end_at or (structure.verdict is Verdict.BAD and not is_open)
        ):
            del self._files[path]
            return GiveUp(path, stamp, now, structure.fault, file.since)
        else:
            again_at = now + max(self._settle_seconds, CLOSED_WITHIN_SECONDS) if is_open else end_at
            self._schedule(path, file, min(again_at, end_at))
        return None

    def _note_parts(self, file: _File, parts: tuple[FilePart, ...], now: float) -> None:
        """Take note of the other files of an image: it changes when one of them does, or comes."""
        if parts == file.parts:
            return
        closes = [self._closes.get(part.stamp) for part in parts]
        seen = [closed for closed in closes if closed is not None]
        file.parts_closed_at = max(seen) if len(seen) == len(closes) and seen else None
        if file.parts or file.parts_closed_at is None:
            file.since = now
        file.parts = parts

    def _schedule(self, path: bytes, file: _File, due: float) -> None:
        file.due = due
        heapq.heappush(self._queue, (due, file.stamp.mtime_ns, path))


def _closed_at(file: _File) -> float | None:
    """When the last file of an image was closed; None where that was not seen of all."""
    if not file.parts or file.closed_at is None:
        return file.closed_at
    return None if file.parts_closed_at is None else max(file.closed_at, file.parts_closed_at)
