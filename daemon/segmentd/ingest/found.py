"""What a watched folder hands over, and how it is doing."""

from __future__ import annotations

from dataclasses import dataclass, field

from segmentd.records import Fault, FilePart, FileStamp


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to segment, or with a `fault` one that never will be as it is.

    Attributes
    ----------
    relative, path : bytes
        Path below the watched folder, and absolute.
    stamp : FileStamp
        What the file was like when it was found complete.
    complete_time_monotonic : float
        When its writer closed it or, where that was not seen, when it was found complete.
    changed_time_monotonic : float
        When it was last seen to change.
    parts : tuple of FilePart
        The other files of the image, with paths below the watched folder.
    """

    relative: bytes
    path: bytes
    stamp: FileStamp
    complete_time_monotonic: float
    fault: Fault | None = None
    changed_time_monotonic: float = field(default=0.0, compare=False)
    parts: tuple[FilePart, ...] = ()

    @property
    def files(self) -> tuple[FilePart, ...]:
        """All files of the image, this one first."""
        return FilePart(self.relative, self.stamp), *self.parts


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """How a watch is doing.

    Attributes
    ----------
    state : str
        `starting`, `active` or `unreachable`.
    mode : str
        `events` or `poll`; `mode_reason` says why it polls.
    waiting : int
        Files that are there and not in work yet: complete, growing, or not even looked at.
    """

    state: str = "starting"
    state_reason: str = ""
    mode: str = "poll"
    mode_reason: str = ""
    waiting: int = 0
