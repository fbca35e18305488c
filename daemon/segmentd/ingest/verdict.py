"""What a look at a file's structure says, and how the checks say it. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from segmentd.errors import Reason
from segmentd.records import Fault, FilePart, FileStamp

MAX_FILE_BYTES = 64 << 30
MAX_DECODED_BYTES = 4 << 30


class Verdict(StrEnum):
    """Whether everything that a file refers to lies inside the file.

    `part` is a file that is no image of its own: it belongs to one that is there.
    """

    CLOSED = "closed"
    OPEN = "open"
    BAD = "bad"
    PART = "part"


@dataclass(frozen=True, slots=True)
class Structure:
    """A verdict; `fault` is what to report if the file stays as it is, None when it is closed.

    `open` means that the file may still be growing, `bad` that no growth will mend it. With
    `announced_changes` a closed file says of itself that its writer is not done; some writers never take that
    back, so it is believed until the file was left alone for as long as one waits for open files.

    Of images in several files, names being those in the folder:

    Attributes
    ----------
    leader, leader_stamp : bytes, FileStamp or None
        Of a file that is part of an image: which file stands for that, and its stamp if it is there.
    parts : tuple of FilePart
        Of a file that stands for an image: the others that are there.
    missing : frozenset of bytes
        And those that are not.
    being_written : bool
        Whether somebody has one of the others open for writing.
    """

    verdict: Verdict
    fault: Fault | None = None
    announced_changes: bool = False
    leader: bytes = b""
    leader_stamp: FileStamp | None = None
    parts: tuple[FilePart, ...] = ()
    missing: frozenset[bytes] = frozenset()
    being_written: bool = False


CLOSED = Structure(Verdict.CLOSED)


class StillOpenError(Exception):
    """The file ends before what it refers to. The text completes "NAME is incomplete: ..."."""


class BadStructureError(Exception):
    """The file cannot be read, however long one waits. The text completes "NAME ..."."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
