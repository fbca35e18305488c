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
from segmentd.process import holder
from segmentd.results.durable import make_folder, sync_folder
from segmentd.results.journal_steps import STEPS

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

SCHEMA_VERSION = len(STEPS)


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
            who = holder.Holder(*file.read().splitlines()[:3])
        raise SegmentdError(
            Reason.LOCKED,
            f"the journal in {folder} is in use by another segmentd ({who}). Stop that one, or give "
            "this one a journal folder of its own.",
            folder=str(folder),
            **who.metadata(),
        ) from None
    who = holder.process(os.getpid())
    file.truncate(0)
    file.write(f"{who.pid}\n{who.host}\n{who.since}\n")
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


def sqlite_note() -> str:
    """Name SQLite's version, and say why the WAL-reset bug of those before 3.51.3 does no harm."""
    if sqlite3.sqlite_version_info >= (3, 51, 3):
        return sqlite3.sqlite_version
    return f"{sqlite3.sqlite_version} (its WAL-reset bug is harmless here: one connection checkpoints)"


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
        for step in STEPS[version:]:
            for part in step:
                if isinstance(part, str):
                    connection.execute(part)
                else:
                    part(connection)
        if version == 0:
            identity = [("id", secrets.token_hex(5)), ("last_number", 0)]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", identity)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _damaged(path: Path, detail: str) -> SegmentdError:
    return SegmentdError(
        Reason.JOURNAL_DAMAGED,
        f"the journal {path} is damaged: {detail}. Run `segmentd rebuild-journal`, which makes "
        "a new one from the results and keeps this one aside, or restore its folder from a backup.",
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
