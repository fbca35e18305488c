"""The journal's table of images: how each ended, and under which stamp, so that it is not done again."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from segmentd.records import Fault, FilePart, FileStamp
from segmentd.results import published
from segmentd.results.published import PublishedFile

_UPSERT = """
INSERT INTO images (
    watch, path, stamp, file_id, ctime_ns, digest, version, state, tries, reason, message, part_of
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (watch, path) DO UPDATE SET
    stamp = excluded.stamp, file_id = excluded.file_id, ctime_ns = excluded.ctime_ns,
    state = excluded.state, tries = excluded.tries, reason = excluded.reason, message = excluded.message,
    part_of = excluded.part_of,
    digest = CASE WHEN excluded.version > 0 THEN excluded.digest ELSE digest END,
    version = max(version, excluded.version)
RETURNING id
"""


class ImageState(StrEnum):
    """How an image ended; subscribers are told of the first two. A `part` is a file of another image."""

    DONE = "done"
    FAILED = "failed"
    VANISHED = "vanished"
    IGNORED = "ignored"
    PART = "part"


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """How one content version of an image ended.

    `path` is relative to the watched folder; no `stamp` means that it is not known (a rebuilt journal).
    `version` and `content_digest` are kept for `done` and `failed` only; the digest is empty where the
    file was never read whole. `files` are its results. `renamed_from` is the path that the image had when
    it was segmented: nothing is there any more, so that path counts as vanished. `parts` are the other files
    of the image, which are recorded with it.
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
    parts: tuple[FilePart, ...] = ()


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


def stamp_text(stamp: FileStamp | None) -> str:
    """Write a stamp as text: inode numbers may exceed SQLite's integers."""
    return f"{stamp.size_bytes}:{stamp.mtime_ns}:{_file_id(stamp)}" if stamp else ""


def _file_id(stamp: FileStamp) -> str:
    return f"{stamp.inode}:{stamp.device}"


def insert_outcome(connection: sqlite3.Connection, outcome: ImageOutcome) -> int:
    """Insert or update an image's row, and those of its parts; returns its id."""
    if outcome.renamed_from:
        query = (
            "UPDATE images SET state = ? WHERE watch = ? AND (path = ? OR (part_of = ? AND state = 'part'))"
        )
        path = outcome.renamed_from
        connection.execute(query, (ImageState.VANISHED, outcome.watch, path, path))
    _insert_parts(connection, outcome.watch, outcome.path, outcome.parts)
    published = outcome.state in (ImageState.DONE, ImageState.FAILED)
    stamp = outcome.stamp
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
            b"",
        ),
    ).fetchall()
    return rows[0][0]


def _insert_parts(
    connection: sqlite3.Connection, watch: str, leader: bytes, parts: Sequence[FilePart]
) -> None:
    """Insert or update the rows of files that are part of an image, the one of `leader`."""
    for part in parts:
        stamp = part.stamp
        fields = (
            stamp_text(stamp),
            _file_id(stamp),
            stamp.ctime_ns,
            "",
            0,
            ImageState.PART,
            1,
            "",
            "",
            leader,
        )
        connection.execute(_UPSERT, (watch, part.path, *fields)).fetchall()


def update_stamp(
    connection: sqlite3.Connection, watch: str, path: bytes, stamp: FileStamp, parts: Sequence[FilePart]
) -> None:
    """Replace the stamps of an image and its parts, and nothing else."""
    _insert_parts(connection, watch, path, parts)
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
