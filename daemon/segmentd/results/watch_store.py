"""Watches made over the API, and which watches are paused: two tables in the journal's database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from sqlite3 import Connection
from typing import Any

from segmentd.results.journal import Journal


class WatchStore:
    """What the API changed about watches; durable when a call returns. The calls block.

    Parameters
    ----------
    journal : Journal
        Open. All errors are those of its writes.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def watches(self) -> dict[str, dict[str, Any]]:
        """Return the watches made over the API: id to the keys of `[[watch]]`."""
        rows = self._journal.write(
            lambda connection: connection.execute("SELECT id, settings FROM watches ORDER BY id").fetchall()
        )
        return {identity: json.loads(settings) for identity, settings in rows}

    def paused(self) -> frozenset[str]:
        """Return the ids of the watches that are paused."""
        rows = self._journal.write(
            lambda connection: connection.execute("SELECT watch FROM pauses").fetchall()
        )
        return frozenset(row[0] for row in rows)

    def save(self, watch: str, settings: Mapping[str, Any]) -> None:
        """Keep a watch, in place of what was kept under its id."""
        # ASCII: names of folders that are not UTF-8 come as surrogates, which JSON escapes.
        text = json.dumps(settings)
        self._journal.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO watches VALUES (?, ?)", (watch, text)
            )
        )

    def set_paused(self, watch: str, paused: bool) -> None:
        """Keep whether a watch is paused."""
        statement = (
            "INSERT OR IGNORE INTO pauses VALUES (?)" if paused else "DELETE FROM pauses WHERE watch = ?"
        )
        self._journal.write(lambda connection: connection.execute(statement, (watch,)))

    def delete(self, watch: str) -> None:
        """Forget a watch."""

        def forget(connection: Connection) -> None:
            connection.execute("DELETE FROM watches WHERE id = ?", (watch,))
            connection.execute("DELETE FROM pauses WHERE watch = ?", (watch,))

        self._journal.write(forget)
