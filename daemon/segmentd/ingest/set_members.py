"""The members of an OME-TIFF set: whether all are there, complete, and the right ones; their digest."""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import dataclass, field

from segmentd.errors import Reason
from segmentd.ingest import confine
from segmentd.ingest.descriptor_file import add_content
from segmentd.ingest.file_set import SetSummary
from segmentd.ingest.names import printable
from segmentd.ingest.set_files import Member, Neighbours, examined, no_file, opened, remembered
from segmentd.ingest.verdict import BadStructureError, StillOpenError
from segmentd.records import FilePart

Fault = StillOpenError | BadStructureError


@dataclass(slots=True)
class SetCheck:
    """How a set is: members that are there, and are not, the worst fault, whether one is being written."""

    parts: list[FilePart] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    fault: Fault | None = None
    writing: bool = False

    def blame(self, fault: Fault) -> None:
        """Keep a fault; one that no waiting mends goes before others."""
        if self.fault is None or (
            isinstance(fault, BadStructureError) > isinstance(self.fault, BadStructureError)
        ):
            self.fault = fault


def check_members(found: SetSummary, neighbours: Neighbours, seconds: float = math.inf) -> SetCheck:
    """Look at all members of the set that `found` leads; after some seconds, at no more that are new.

    Those found closed are remembered, so the next look comes further. Raises OSError.
    """
    check = SetCheck()
    until = time.monotonic() + seconds
    own = found.references.files.get(found.references.own)
    if own is not None and found.own is not None:
        _check_images(check, found.name, own.images, found.own.page_count)
    for number, name in enumerate(found.members):
        try:
            if not _look_at(check, found, name, neighbours, until):
                text = f"its set of {len(found.members)} files is still looked at, {number} so far"
                check.blame(StillOpenError(text))
                break
        except confine.NotRegularError:
            check.blame(no_file(name))
        except PermissionError:
            text = f"has a member {printable(name)} that cannot be read; make it readable for this account"
            check.blame(BadStructureError(Reason.IMAGE_UNREADABLE, text))
    if check.missing:
        count = len(found.references.files)
        shown = printable(check.missing[0])
        text = f"its set lacks {len(check.missing)} of {count} files, for example {shown}"
        check.blame(StillOpenError(text))
    return check


def _look_at(check: SetCheck, found: SetSummary, name: bytes, neighbours: Neighbours, until: float) -> bool:
    """Look at one member; False if it is not known and there is no more time for that."""
    stamp = neighbours.stamp(name)
    if stamp is None:
        check.missing.append(name)
        return True
    member = remembered(stamp)
    if member is None and time.monotonic() > until:
        return False
    if member is not None and not neighbours.local:
        check.parts.append(FilePart(name, stamp))
        _check_identity(check, found, name, member)
        return True
    with opened(neighbours, name) as (fd, stamp):
        if fd < 0 or stamp is None:
            check.missing.append(name)  # it has just gone
            return True
        check.parts.append(FilePart(name, stamp))
        _check_member(check, found, name, fd)
        check.writing = check.writing or (neighbours.local and confine.is_open_for_writing(fd))
    return True


def digest(fd: int, members: list[bytes], neighbours: Neighbours) -> str:
    """SHA-256 over the leader's content, and of all members, in the order of names: name, size, content."""
    sha256 = hashlib.sha256(b"set of %d " % len(members))
    for name in (b"", *members):
        opened = os.dup(fd) if name == b"" else neighbours.open(name)
        try:
            sha256.update(b"%d %s %d " % (len(name), name, os.fstat(opened).st_size))
            add_content(sha256, opened)
        finally:
            os.close(opened)
    return sha256.hexdigest()


def checked_member(fd: int, found: SetSummary, name: bytes) -> None:
    """Check one member before a decoder sees it.

    Raises
    ------
    StillOpenError, BadStructureError
        What is wrong with it; the text is about the set.
    """
    check = SetCheck()
    _check_member(check, found, name, fd)
    if check.fault is not None:
        raise check.fault


def _check_member(check: SetCheck, found: SetSummary, name: bytes, fd: int) -> None:
    shown = printable(name)
    try:
        _check_identity(check, found, name, examined(fd))
    except StillOpenError as error:
        check.blame(StillOpenError(f"its member {shown} is, too: {error}"))
    except BadStructureError as error:
        check.blame(BadStructureError(error.reason, f"has a member {shown} that {error}"))


def _check_identity(check: SetCheck, found: SetSummary, name: bytes, member: Member) -> None:
    named = found.references.files[name]
    expected = ((named.uuid, member.uuid), (found.references.uuid, member.metadata_uuid))
    if any(one and other and one != other for one, other in expected):
        shown = printable(name)
        text = (
            f"has a member {shown} that belongs to another set (its UUID is another one); copy the right one"
        )
        check.blame(BadStructureError(Reason.IMAGE_CORRUPT, text))
    _check_images(check, name, named.images, member.images)


def _check_images(check: SetCheck, name: bytes, needed: int, there: int) -> None:
    if there < needed:
        check.blame(StillOpenError(f"its member {printable(name)} has {there} of {needed} planes"))
