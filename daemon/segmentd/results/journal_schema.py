"""The journal's file: its tables, how it is made, checked and opened, and its errors.

A new journal is built under another name and renamed, so a file under the real name is always whole; an
empty or missing table means damage and is never filled in silently. Only the writer checkpoints: SQLite
before 3.51.3 can damage a write-ahead log that two connections checkpoint.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from segmentd.errors import Reason, SegmentdError
from segmentd.results.durable import make_folder, sync_folder

FILE_NAME = "journal.sqlite"
LOCK_NAME = "journal.lock"
_APPLICATION_ID = 0x53474D44  # "SGMD"
_DAMAGE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
)  # the last: a table is missing
_NUMBERING = """
SELECT count(*) = 2 AND sum(key = 'last_number' AND value >= (SELECT ifnull(max(number), 0) FROM events))
FROM meta WHERE key IN ('id', 'last_number')
"""

# One entry for each schema version; a journal of version n has gone through the first n.
_STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        """
        CREATE TABLE images (
            id INTEGER PRIMARY KEY,
            watch TEXT NOT NULL,
            path BLOB NOT NULL,       -- relative to the watched folder
            stamp TEXT NOT NULL,      -- size:mtime_ns:inode:device
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
    ),
    (
        # made over the API; settings are JSON with the keys of [[watch]]
        "CREATE TABLE watches (id TEXT PRIMARY KEY, settings TEXT NOT NULL) WITHOUT ROWID",
        # paused watches, also those of the configuration file
        "CREATE TABLE pauses (watch TEXT PRIMARY KEY) WITHOUT ROWID",
        "CREATE INDEX failed_events ON events (number) WHERE json_extract(payload, '$.state') = 'FAILED'",
    ),
)
SCHEMA_VERSION = len(_STEPS)


def lock_folder(folder: Path) -> IO[str]:
    """Claim the journal's folder for this process, making it if needed.

    The lock goes with the process, so a killed daemon leaves none behind. Closing the returned file
    gives it up.

    Raises
    ------
    SegmentdError
        LOCKED, naming the process that has it.
    """
    make_folder(folder, 0o700)
    file = (folder / LOCK_NAME).open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            holder = file.read().strip() or "unknown"
        raise SegmentdError(
            Reason.LOCKED,
            f"the journal in {folder} is in use by another segmentd (process {holder}). Stop that one, or "
            "give this one a journal folder of its own.",
            pid=holder,
            folder=str(folder),
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the journal for its one writing connection, making or upgrading it as needed.

    Raises
    ------
    SegmentdError
        JOURNAL_DAMAGED, JOURNAL_NEWER, JOURNAL_NOT_WRITABLE or DISK_FULL.
    """
    with journal_errors(path):
        leftovers = [path.with_name(path.name + ending) for ending in ("-wal", "-journal")]
        if not path.exists():
            if any(file.exists() for file in leftovers):
                raise _damaged(path, "its main file is missing")
            _create(path)
        connection = _connect(path, "rw")
        try:
            _check(connection, path)
            _configure(connection)
            _upgrade(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a read-only connection, which never checkpoints."""
    connection = _connect(path, "ro")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Commit what the block does, or nothing of it."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, naming the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & 0xFF
        if code in _DAMAGE:
            raise _damaged(path, str(error)) from error
        raise _unwritable(path, str(error), full=code == sqlite3.SQLITE_FULL) from error
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), full=False) from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _create(path: Path) -> None:
    building = path.with_name(path.name + ".new")
    building.unlink(missing_ok=True)
    with contextlib.closing(_connect(building, "rwc")) as connection:
        _configure(connection)
        _upgrade(connection)
    building.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_folder(folder)
    finally:
        os.close(folder)


def _configure(connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise sqlite3.OperationalError("this file system cannot hold a write-ahead log; use a local disk")
    connection.execute("PRAGMA synchronous = FULL")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        raise _damaged(path, "it is empty or not a journal of segmentd")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise SegmentdError(
            Reason.JOURNAL_NEWER,
            f"the journal {path} was written by a newer segmentd (schema {version}, this one knows "
            f"{SCHEMA_VERSION}). Install that version again, or use another journal folder.",
            path=str(path),
        )
    findings = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if findings != ["ok"]:
        raise _damaged(path, findings[0])
    if not connection.execute(_NUMBERING).fetchone()[0]:
        raise _damaged(path, "its event numbers do not fit together")


def _upgrade(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    with transaction(connection):
        for step in _STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        if version == 0:
            identity = [("id", secrets.token_hex(5)), ("last_number", 0)]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", identity)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _damaged(path: Path, detail: str) -> SegmentdError:
    return SegmentdError(
        Reason.JOURNAL_DAMAGED,
        f"the journal {path} is damaged: {detail}. Restore its folder from a backup, or move it away: "
        "a new one is begun, and images whose results are there are segmented once more.",
        path=str(path),
    )


def _unwritable(path: Path, detail: str, *, full: bool) -> SegmentdError:
    if full:
        return SegmentdError(
            Reason.DISK_FULL, f"no room left for the journal {path}. Free some space there.", path=str(path)
        )
    return SegmentdError(
        Reason.JOURNAL_NOT_WRITABLE,
        f"the journal {path} cannot be used: {detail}. Check the disk and the permissions of its folder.",
        path=str(path),
    )
