"""OME-TIFF sets: one image in several files of a folder. Who leads a set, and who belongs to it.

One file stands for the set: the one with the metadata, else the one with the first plane.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from segmentd.errors import Reason
from segmentd.ingest import confine, tiff_structure
from segmentd.ingest.memory import Memory
from segmentd.ingest.names import printable
from segmentd.ingest.ome_reader import References, is_companion
from segmentd.ingest.ome_references import references_in_companion, references_in_tiff
from segmentd.ingest.set_files import Neighbours, examined, no_file, opened
from segmentd.ingest.tiff_promise import MAX_DESCRIPTION_BYTES
from segmentd.ingest.tiff_structure import TiffSummary
from segmentd.ingest.verdict import BadStructureError, StillOpenError
from segmentd.records import FileStamp

LEADERS_REMEMBERED = 4


@dataclass(frozen=True, slots=True)
class SetSummary:
    """What the check learned of a set: its XML, what that refers to, and of the file it is in."""

    xml: bytes
    references: References
    name: bytes
    own: TiffSummary | None

    @property
    def members(self) -> list[bytes]:
        """Names of the other files, sorted."""
        return sorted(name for name in self.references.files if name != self.references.own)


@dataclass(frozen=True, slots=True)
class Membership:
    """A file that is no image of its own: who leads its set, and that file's stamp, None if it is not there.

    `fault` says why it never will be part of that set, or, without a stamp, what it waits for.
    """

    leader: bytes
    stamp: FileStamp | None
    fault: StillOpenError | BadStructureError | None = None


_leaders: Memory[FileStamp, SetSummary] = Memory(LEADERS_REMEMBERED)


def set_of(fd: int, summary: TiffSummary, name: bytes) -> SetSummary | None:
    """Return what the TIFF `name` says of the set it is in, None where it stands for itself.

    `summary` is what the check of its own structure learned.

    Raises
    ------
    BadStructureError
        Its XML cannot be read, or refers to what it must not.
    """
    stamp = confine.stamp_of(fd)
    known = _leaders.get(stamp)
    if known is not None and known.name == name:
        return known
    references = references_in_tiff(summary.description, name)
    if references is None:
        return None
    found = SetSummary(summary.description, references, name, summary)
    return found if references.metadata_file else _leaders.keep(stamp, found)


def examine_companion(fd: int, name: bytes) -> SetSummary:
    """Return what a companion file says of the set it describes.

    Raises
    ------
    StillOpenError, BadStructureError
        It cannot be read (yet), or refers to what it must not.
    """
    stamp = confine.stamp_of(fd)
    known = _leaders.get(stamp)
    if known is not None and known.name == name:
        return known
    xml = _companion_xml(fd)
    return _leaders.keep(stamp, SetSummary(xml, references_in_companion(xml, name), name, None))


def leader_of(found: SetSummary, neighbours: Neighbours) -> bytes:
    """Name of the file that leads the set: where members say that metadata are, else with the first plane."""
    leader = found.references.leader_for(found.name)
    if leader == found.name or found.references.metadata_file:
        return leader
    # The file with the first plane may say in turn that its metadata are here.
    with opened(neighbours, leader) as (fd, _):
        if fd >= 0:
            try:
                if examined(fd).metadata_file == found.name:
                    return found.name
            except (StillOpenError, BadStructureError):
                return leader  # which tells itself what is wrong with it
    return leader


def membership(found: SetSummary, leader: bytes, neighbours: Neighbours) -> Membership:
    """Look whether the leader of a set is there and knows this member. Raises OSError."""
    with opened(neighbours, leader) as (fd, stamp):
        shown = printable(leader)
        if stamp is None:
            fault = StillOpenError(f"it is part of the set of {shown}, which is not there")
            return Membership(leader, None, fault)
        if fd < 0:
            return Membership(leader, stamp, no_file(leader))
        try:
            leading = _led_by(fd, stamp, leader)
        except (StillOpenError, BadStructureError):
            return Membership(leader, stamp)  # which tells itself what is wrong with it
        if leading is None or found.name not in leading.members:
            text = f"says that it is part of the set of {shown}, which does not name it; rename it back"
            return Membership(leader, stamp, BadStructureError(Reason.IMAGE_UNSUPPORTED, text))
    return Membership(leader, stamp)


def _led_by(fd: int, stamp: FileStamp, name: bytes) -> SetSummary | None:
    """Read what a file says of the set it leads, unless that is known; None if it leads none."""
    known = _leaders.get(stamp)
    if known is not None and known.name == name:
        return known
    if is_companion(name):
        return examine_companion(fd, name)
    return set_of(fd, tiff_structure.examine(fd), name)


def _companion_xml(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > MAX_DESCRIPTION_BYTES:
        text = f"has {size} bytes of OME-XML; {MAX_DESCRIPTION_BYTES} are allowed: split the set"
        raise BadStructureError(Reason.IMAGE_TOO_LARGE, text)
    xml = os.pread(fd, size, 0)
    if not xml.strip(b"\0 \t\r\n"):
        raise StillOpenError("it is empty")
    return xml
