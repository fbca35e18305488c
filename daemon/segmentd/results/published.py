"""The journal's table of result files: what was published under which name, to be checked and linked."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from segmentd.records import Segmentation
from segmentd.results.contents import stamp_of

_COLUMNS = "kind, path, digest, size_bytes, number, fault"
Place = tuple[int, bytes]
"""Number and path: where a result file is in the order of the events."""


class ResultFault(StrEnum):
    """What is wrong with a result file."""

    NONE = ""
    MISSING = "missing"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A result file: its kind (`labels`, ...), absolute path, SHA-256 and size (-1 if not known).

    `number` is the event that told of it (0 before that), `fault` what was found wrong with it last.
    """

    kind: str
    path: bytes
    digest: str
    size_bytes: int = -1
    number: int = 0
    fault: ResultFault = ResultFault.NONE


@dataclass(frozen=True, slots=True)
class ResultFaults:
    """How many result files of a watch are not as they were published, and one of them."""

    missing: int = 0
    damaged: int = 0
    example: bytes = b""


def published_files(record: Segmentation) -> tuple[PublishedFile, ...]:
    """Return the result files of an image, of which all planes name the same."""
    return tuple(
        PublishedFile(kind, os.fsencode(path), record.digests[kind], _size_of(path))
        for kind, path in record.files.items()
    )


def is_there(file: PublishedFile) -> bool:
    """Whether a file was not found damaged, and is not missing; a disk out of reach tells nothing."""
    try:
        os.stat(file.path)  # noqa: PTH116 (bytes)
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return file.fault is ResultFault.NONE


def _size_of(path: str) -> int:
    try:
        return stamp_of(os.fsencode(path)).size_bytes
    except OSError:  # its share has just gone; it is durable, and its digest is known
        return -1


def insert(connection: sqlite3.Connection, image: int, number: int, files: Sequence[PublishedFile]) -> None:
    """Note the files that the event `number` tells of; they replace those of the same name.

    Those of the same kind under another name were of a version before, in another format.
    """
    connection.executemany(
        "DELETE FROM results WHERE image = ? AND kind = ? AND path != ?",
        [(image, file.kind, file.path) for file in files],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, '')",
        [(file.path, image, file.kind, file.digest, file.size_bytes, number) for file in files],
    )


def of_image(connection: sqlite3.Connection, image: int) -> tuple[PublishedFile, ...]:
    """Return the files of an image that are still noted."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM results WHERE image = ?", (image,))
    return tuple(_file(*row) for row in rows)


def newest(connection: sqlite3.Connection, before: Place, limit: int) -> list[tuple[Place, PublishedFile]]:
    """Return files in the order of their events, newest first, each with its place in that order."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM results WHERE (number, path) < (?, ?) "
        "ORDER BY number DESC, path DESC LIMIT ?",
        (*before, limit),
    )
    files = [_file(*row) for row in rows]
    return [((file.number, file.path), file) for file in files]


def _file(kind: str, path: bytes, digest: str, size_bytes: int, number: int, fault: str) -> PublishedFile:
    return PublishedFile(kind, path, digest, size_bytes, number, ResultFault(fault))


def set_fault(connection: sqlite3.Connection, file: PublishedFile, fault: ResultFault) -> None:
    """Note what is wrong with a file, unless another one has taken its name meanwhile."""
    connection.execute(
        "UPDATE results SET fault = ? WHERE path = ? AND digest = ?", (fault, file.path, file.digest)
    )


def faults(connection: sqlite3.Connection, watch: str) -> ResultFaults:
    """Count the files of a watch that are missing or damaged."""
    rows = connection.execute(
        "SELECT fault, count(*), min(results.path) FROM results JOIN images ON images.id = results.image "
        "WHERE results.fault != '' AND images.watch = ? GROUP BY fault",
        (watch,),
    ).fetchall()
    counts = {fault: (count, path) for fault, count, path in rows}
    missing, damaged = (counts.get(fault, (0, b"")) for fault in (ResultFault.MISSING, ResultFault.DAMAGED))
    return ResultFaults(missing[0], damaged[0], damaged[1] or missing[1])


def forget_before(connection: sqlite3.Connection, number: int) -> None:
    """Forget the files of events that are no longer kept."""
    connection.execute("DELETE FROM results WHERE number < ?", (number,))
