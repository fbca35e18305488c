"""The journal's table of images: how each ended, and under which stamp, so that it is not done again."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum

from segmentd.records import Fault, FileStamp

_UPSERT = """
INSERT INTO images (watch, path, stamp, digest, version, state, tries, reason, message)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (watch, path) DO UPDATE SET
    stamp = excluded.stamp, state = excluded.state, tries = excluded.tries,
    reason = excluded.reason, message = excluded.message,
    digest = CASE WHEN excluded.version > 0 THEN excluded.digest ELSE digest END,
    version = max(version, excluded.version)
"""


class ImageState(StrEnum):
    """How an image ended; subscribers are told of the first two."""

    DONE = "done"
    FAILED = "failed"
    VANISHED = "vanished"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """How one content version of an image ended.

    `path` is relative to the watched folder. `version` and `content_digest` are kept for `done` and
    `failed` only; the digest is empty where the file was never read whole.
    """

    watch: str
    path: bytes
    stamp: FileStamp
    state: ImageState
    content_digest: str = ""
    version: int = 1
    tries: int = 1
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class ImageRow:
    """What the journal keeps of an image: the last content published, and how the image ended."""

    content_digest: str
    version: int
    state: ImageState


class KnownStamps:
    """In memory: the stamp under which each path ended. A scan asks for every file in the folder."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._by_watch: dict[str, dict[bytes, str]] = {}
        rows = connection.execute("SELECT watch, path, stamp FROM images WHERE state != 'vanished'")
        for watch, path, stamp in rows:
            self._by_watch.setdefault(watch, {})[path] = stamp

    def has(self, watch: str, path: bytes, stamp: FileStamp) -> bool:
        """Whether the path ended under this very stamp."""
        return self._by_watch.get(watch, {}).get(path) == stamp_text(stamp)

    def keep(self, watch: str, path: bytes, stamp: FileStamp) -> None:
        """Note that a path ended."""
        self._by_watch.setdefault(watch, {})[path] = stamp_text(stamp)

    def keep_outcome(self, outcome: ImageOutcome) -> None:
        """Note an outcome; a vanished image is forgotten, so that it is done when it comes back."""
        if outcome.state is ImageState.VANISHED:
            self._by_watch.get(outcome.watch, {}).pop(outcome.path, None)
        else:
            self.keep(outcome.watch, outcome.path, outcome.stamp)


def stamp_text(stamp: FileStamp) -> str:
    """Write a stamp as text: inode numbers may exceed SQLite's integers."""
    return f"{stamp.size_bytes}:{stamp.mtime_ns}:{stamp.inode}:{stamp.device}"


def insert_outcome(connection: sqlite3.Connection, outcome: ImageOutcome) -> None:
    """Insert or update an image's row."""
    published = outcome.state in (ImageState.DONE, ImageState.FAILED)
    connection.execute(
        _UPSERT,
        (
            outcome.watch,
            outcome.path,
            stamp_text(outcome.stamp),
            outcome.content_digest if published else "",
            outcome.version if published else 0,
            outcome.state,
            outcome.tries,
            outcome.fault.reason if outcome.fault else "",
            outcome.fault.message if outcome.fault else "",
        ),
    )


def update_stamp(connection: sqlite3.Connection, watch: str, path: bytes, stamp: FileStamp) -> None:
    """Replace an image's stamp and nothing else."""
    connection.execute(
        "UPDATE images SET stamp = ? WHERE watch = ? AND path = ?", (stamp_text(stamp), watch, path)
    )


def find_image(connection: sqlite3.Connection, watch: str, path: bytes) -> ImageRow | None:
    """Return what is kept of an image, None if it never ended."""
    row = connection.execute(
        "SELECT digest, version, state FROM images WHERE watch = ? AND path = ?", (watch, path)
    ).fetchone()
    return row and ImageRow(row[0], row[1], ImageState(row[2]))


def count_states(connection: sqlite3.Connection, watch: str) -> dict[ImageState, int]:
    """Count a watch's images by how they ended; all states are there."""
    rows = connection.execute("SELECT state, count(*) FROM images WHERE watch = ? GROUP BY state", (watch,))
    return dict.fromkeys(ImageState, 0) | {ImageState(state): number for state, number in rows}
