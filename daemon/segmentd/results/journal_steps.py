"""How the journal's tables came to be: one step for each schema version.

A step is never changed once it was released: a journal of version n has gone through the first n. Another
version is another step, statements of SQL or functions for what SQL cannot do, run in one transaction.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable

Step = tuple[str | Callable[[sqlite3.Connection], None], ...]

_TABLES: Step = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE images (
        id INTEGER PRIMARY KEY,
        watch TEXT NOT NULL,
        path BLOB NOT NULL,       -- relative to the watched folder
        stamp TEXT NOT NULL,      -- size:mtime_ns:inode:device, '' if not known (a rebuilt journal)
        digest TEXT NOT NULL,     -- SHA-256 of the content last published, '' if never read whole
        version INTEGER NOT NULL, -- content version last published, 0 if none
        state TEXT NOT NULL,      -- done, failed, vanished, ignored
        tries INTEGER NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        UNIQUE (watch, path)
    )
    """,
    "CREATE INDEX images_by_state ON images (watch, state)",
    """
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        image INTEGER NOT NULL REFERENCES images (id),
        watch TEXT NOT NULL,
        recorded REAL NOT NULL,   -- seconds since the epoch
        payload TEXT NOT NULL
    )
    """,
    "CREATE INDEX events_by_watch ON events (watch, number)",
)


def _list_published(connection: sqlite3.Connection) -> None:
    """Fill the table of result files from the events; the size of these is not known."""
    rows = connection.execute("SELECT number, image, payload FROM events ORDER BY number")
    for number, image, payload in rows.fetchall():
        data = json.loads(payload)
        connection.executemany(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, -1, ?, '')",
            [
                (os.fsencode(path), image, kind, data["digests"].get(kind, ""), number)
                for kind, path in data["files"].items()
            ],
        )


_RENAMES_AND_RESULTS: Step = (
    "ALTER TABLE images ADD COLUMN file_id TEXT NOT NULL DEFAULT ''",  # inode:device
    "ALTER TABLE images ADD COLUMN ctime_ns INTEGER NOT NULL DEFAULT 0",  # 0 if not known
    """
    UPDATE images SET file_id = substr(
        substr(stamp, instr(stamp, ':') + 1), instr(substr(stamp, instr(stamp, ':') + 1), ':') + 1
    )
    """,
    "CREATE INDEX images_by_file ON images (watch, file_id)",
    "CREATE TABLE first_looks (watch TEXT PRIMARY KEY) WITHOUT ROWID",
    """
    CREATE TABLE results (
        path BLOB PRIMARY KEY,    -- absolute; a later version of the image replaces the row
        image INTEGER NOT NULL REFERENCES images (id),
        kind TEXT NOT NULL,
        digest TEXT NOT NULL,     -- SHA-256
        size_bytes INTEGER NOT NULL, -- -1 if not known
        number INTEGER NOT NULL,  -- of the event that told of it
        fault TEXT NOT NULL       -- '', missing or damaged, as last seen
    )
    """,
    "CREATE INDEX results_by_image ON results (image)",
    "CREATE INDEX results_at_fault ON results (image) WHERE fault != ''",
    "CREATE INDEX results_by_number ON results (number)",
    _list_published,
)

_WATCHES_OVER_THE_API: Step = (
    # settings are JSON with the keys of [[watch]]
    "CREATE TABLE watches (id TEXT PRIMARY KEY, settings TEXT NOT NULL) WITHOUT ROWID",
    # paused watches, also those of the configuration file
    "CREATE TABLE pauses (watch TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE INDEX failed_events ON events (number) WHERE json_extract(payload, '$.state') = 'FAILED'",
)

_IMAGES_IN_SEVERAL_FILES: Step = (
    # of a file that is part of an image (state `part`): the path of that image
    "ALTER TABLE images ADD COLUMN part_of BLOB NOT NULL DEFAULT x''",
)

STEPS: tuple[Step, ...] = (
    _TABLES,
    _RENAMES_AND_RESULTS,
    _WATCHES_OVER_THE_API,
    _IMAGES_IN_SEVERAL_FILES,
)
