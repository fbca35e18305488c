"""The events of a journal, read through read-only connections of its own; safe from any thread."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segmentd.records import ResultEvent
from segmentd.results.journal_schema import journal_errors, open_reader, transaction
from segmentd.results.payload import decode_segmentation

# The condition as the index over failed events has it, word for word.
_FAILURES = """
SELECT number, payload FROM events WHERE json_extract(payload, '$.state') = 'FAILED'
ORDER BY number DESC LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in order, with the bounds of the journal at that very moment.

    `oldest` is the number of the oldest event kept (`last + 1` if none is), `last` the highest number
    ever given (0 before the first).
    """

    events: list[ResultEvent]
    oldest: int
    last: int


@dataclass(frozen=True, slots=True)
class EventList:
    """One page of a listing; `next_token` continues it, None at its end."""

    events: list[ResultEvent]
    next_token: int | None


class EventReader:
    """Reads events from a journal file that is open for writing elsewhere in this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._open = True

    def read(self, after: int, limit: int, watch: str | None = None) -> EventPage:
        """Read up to `limit` events with numbers above `after`, of one watch or of all."""
        with self._connection() as connection:
            last, oldest = _read_bounds(connection)
            rows = _select(connection, "number > ?", after, watch, "ASC", limit)
        return EventPage([_event(*row) for row in rows], oldest, last)

    def events(self, after: int, limit: int, watch: str | None = None) -> list[ResultEvent]:
        """Read events as `read` does, without the bounds."""
        return self.read(after, limit, watch).events

    def event(self, number: int) -> ResultEvent | None:
        """Return one event, None if it is not kept or never was."""
        events = self.events(number - 1, 1)
        return events[0] if events and events[0].number == number else None

    def failures(self, limit: int) -> list[ResultEvent]:
        """Read the last events of images that failed, the latest first."""
        with self._connection() as connection:
            rows = connection.execute(_FAILURES, (limit,)).fetchall()
        return [_event(*row) for row in rows]

    def page(
        self, limit: int, token: int | None = None, watch: str | None = None, *, newest_first: bool = True
    ) -> EventList:
        """List events page by page; `token` is a page's `next_token`, None for the first page."""
        if newest_first:
            condition, start, order = "number < ?", 2**63 - 1 if token is None else token, "DESC"
        else:
            condition, start, order = "number > ?", token or 0, "ASC"
        with self._connection() as connection:
            rows = _select(connection, condition, start, watch, order, limit + 1)
        more = len(rows) > limit
        events = [_event(*row) for row in rows[:limit]]
        return EventList(events, events[-1].number if more and events else None)

    def last_number(self) -> int:
        """Return the highest number ever given, 0 before the first event."""
        return self._bounds()[0]

    def oldest_number(self) -> int:
        """Return the number of the oldest event kept; one more than the last if none is."""
        return self._bounds()[1]

    def size_bytes(self) -> int:
        """Return the room that the journal takes on disk."""
        files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the connections; those in use are closed when they are given back."""
        with self._idle_lock:
            self._open = False
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _bounds(self) -> tuple[int, int]:
        """Return the last number given and the oldest kept."""
        with self._connection() as connection:
            return _read_bounds(connection)

    def _first_recorded_since(self, seconds: float, last: int) -> int:
        """Return the oldest event since a time (seconds since the epoch), or one after the last."""
        query = "SELECT number FROM events WHERE recorded >= ? ORDER BY number LIMIT 1"
        with self._connection() as connection:
            row: tuple[int] | None = connection.execute(query, (seconds,)).fetchone()
        return last + 1 if row is None else row[0]

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection, inside one read transaction."""
        with self._idle_lock:
            connection = self._idle.pop() if self._idle else None
        with journal_errors(self._path):
            connection = connection or open_reader(self._path)
            try:
                with transaction(connection, "DEFERRED"):
                    yield connection
            finally:
                with self._idle_lock:
                    if self._open:
                        self._idle.append(connection)
                    else:
                        connection.close()


def _read_bounds(connection: sqlite3.Connection) -> tuple[int, int]:
    last: int = connection.execute("SELECT value FROM meta WHERE key = 'last_number'").fetchone()[0]
    oldest: int | None = connection.execute("SELECT min(number) FROM events").fetchone()[0]
    return last, last + 1 if oldest is None else oldest


def _select(
    connection: sqlite3.Connection, condition: str, number: int, watch: str | None, order: str, limit: int
) -> list[tuple[int, str]]:
    """Run one of the four event queries; all text put into it is ours."""
    values: tuple[int | str, ...] = (number, limit) if watch is None else (number, watch, limit)
    of_watch = "" if watch is None else "AND watch = ?"
    query = f"SELECT number, payload FROM events WHERE {condition} {of_watch} ORDER BY number {order} LIMIT ?"
    return connection.execute(query, values).fetchall()


def _event(number: int, payload: str) -> ResultEvent:
    return ResultEvent(number, decode_segmentation(payload))
