"""The journal's table of images: how each ended, and under which stamp, so that it is not done again."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum

from segmentd.errors import Reason
from segmentd.records import Fault, FileStamp
from segmentd.results import published
from segmentd.results.published import PublishedFile

_UPSERT = """
INSERT INTO images (watch, path, stamp, file_id, ctime_ns, digest, version, state, tries, reason, message)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (watch, path) DO UPDATE SET
    stamp = excluded.stamp, file_id = excluded.file_id, ctime_ns = excluded.ctime_ns,
    state = excluded.state, tries = excluded.tries, reason = excluded.reason, message = excluded.message,
    digest = CASE WHEN excluded.version > 0 THEN excluded.digest ELSE digest END,
    version = max(version, excluded.version)
RETURNING id
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

    `path` is relative to the watched folder; no `stamp` means that it is not known (a rebuilt journal).
    `version` and `content_digest` are kept for `done` and `failed` only; the digest is empty where the
    file was never read whole. `files` are its results. `renamed_from` is the path that the image had when
    it was segmented: nothing is there any more, so that path counts as vanished.
    """

    watch: str
    path: bytes
    stamp: FileStamp | None
    state: ImageState
    content_digest: str = ""
    version: int = 1
    tries: int = 1
    fault: Fault | None = None
    files: tuple[PublishedFile, ...] = ()
    renamed_from: bytes = b""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """What the journal keeps of an image: the last content published, and how the image ended."""

    path: bytes
    stamp: str
    content_digest: str
    version: int
    state: ImageState
    reason: str
    message: str
    files: tuple[PublishedFile, ...] = ()


class KnownStamps:
    """In memory: the stamp under which each path ended. A scan asks for every file in the folder."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._by_watch: dict[str, dict[bytes, tuple[str, ImageState, int]]] = {}
        # What could not be read is tried once more: a stamp does not tell that it can be read now, or that
        # what its format needs was installed.
        rows = connection.execute(
            "SELECT watch, path, stamp, state, ctime_ns FROM images "
            "WHERE state != 'vanished' AND reason NOT IN (?, ?)",
            (Reason.IMAGE_UNREADABLE, Reason.IMAGE_NEEDS_EXTRA),
        )
        for watch, path, stamp, state, ctime_ns in rows:
            self._by_watch.setdefault(watch, {})[path] = (stamp, ImageState(state), ctime_ns)

    def has(self, watch: str, path: bytes, stamp: FileStamp) -> bool:
        """Whether the path ended under this very stamp.

        A failed image whose permissions or the like have changed since may have been mended.
        """
        known = self._by_watch.get(watch, {}).get(path)
        if known is None or known[0] != stamp_text(stamp):
            return False
        return (
            known[1] is not ImageState.FAILED or 0 in (known[2], stamp.ctime_ns) or known[2] == stamp.ctime_ns
        )

    def is_done(self, watch: str, path: bytes, stamp: FileStamp) -> bool:
        """Whether the path is done under this very stamp."""
        known = self._by_watch.get(watch, {}).get(path)
        return known is not None and known[:2] == (stamp_text(stamp), ImageState.DONE)

    def keep(self, watch: str, path: bytes, stamp: FileStamp, state: ImageState) -> None:
        """Note that a path ended."""
        self._by_watch.setdefault(watch, {})[path] = (stamp_text(stamp), state, stamp.ctime_ns)

    def keep_outcome(self, outcome: ImageOutcome) -> None:
        """Note an outcome; a vanished image is forgotten, so that it is done when it comes back."""
        of_watch = self._by_watch.get(outcome.watch, {})
        of_watch.pop(outcome.renamed_from, None)
        if outcome.state is ImageState.VANISHED or outcome.stamp is None:
            of_watch.pop(outcome.path, None)
        else:
            self.keep(outcome.watch, outcome.path, outcome.stamp, outcome.state)


def stamp_text(stamp: FileStamp | None) -> str:
    """Write a stamp as text: inode numbers may exceed SQLite's integers."""
    return f"{stamp.size_bytes}:{stamp.mtime_ns}:{_file_id(stamp)}" if stamp else ""


def _file_id(stamp: FileStamp) -> str:
    return f"{stamp.inode}:{stamp.device}"


def insert_outcome(connection: sqlite3.Connection, outcome: ImageOutcome) -> int:
    """Insert or update an image's row; returns its id."""
    published = outcome.state in (ImageState.DONE, ImageState.FAILED)
    stamp = outcome.stamp
    if outcome.renamed_from:
        query = "UPDATE images SET state = ? WHERE watch = ? AND path = ?"
        connection.execute(query, (ImageState.VANISHED, outcome.watch, outcome.renamed_from))
    rows: list[tuple[int]] = connection.execute(
        _UPSERT,
        (
            outcome.watch,
            outcome.path,
            stamp_text(stamp),
            _file_id(stamp) if stamp else "",
            stamp.ctime_ns if stamp else 0,
            outcome.content_digest if published else "",
            outcome.version if published else 0,
            outcome.state,
            outcome.tries,
            outcome.fault.reason if outcome.fault else "",
            outcome.fault.message if outcome.fault else "",
        ),
    ).fetchall()
    return rows[0][0]


def update_stamp(connection: sqlite3.Connection, watch: str, path: bytes, stamp: FileStamp) -> None:
    """Replace an image's stamp and nothing else."""
    connection.execute(
        "UPDATE images SET stamp = ?, file_id = ?, ctime_ns = ? WHERE watch = ? AND path = ?",
        (stamp_text(stamp), _file_id(stamp), stamp.ctime_ns, watch, path),
    )


def find_image(connection: sqlite3.Connection, watch: str, path: bytes) -> ImageRow | None:
    """Return what is kept of an image, None if it never ended."""
    rows = _select(connection, "watch = ? AND path = ?", (watch, path))
    return rows[0] if rows else None


def find_by_file(connection: sqlite3.Connection, watch: str, stamp: FileStamp) -> list[ImageRow]:
    """Return the images of a watch, done or ignored, that were this very file, under whatever name."""
    condition = "watch = ? AND file_id = ? AND state IN ('done', 'ignored')"
    return _select(connection, condition, (watch, _file_id(stamp)))


def _select(
    connection: sqlite3.Connection, condition: str, values: tuple[str | bytes, ...]
) -> list[ImageRow]:
    query = f"SELECT id, path, stamp, digest, version, state, reason, message FROM images WHERE {condition}"
    return [
        ImageRow(
            path,
            stamp,
            digest,
            version,
            ImageState(state),
            reason,
            message,
            published.of_image(connection, key),
        )
        for key, path, stamp, digest, version, state, reason, message in connection.execute(
            query, values
        ).fetchall()
    ]


def count_states(connection: sqlite3.Connection, watch: str) -> dict[ImageState, int]:
    """Count a watch's images by how they ended; all states are there."""
    rows = connection.execute("SELECT state, count(*) FROM images WHERE watch = ? GROUP BY state", (watch,))
    return dict.fromkeys(ImageState, 0) | {ImageState(state): number for state, number in rows}
