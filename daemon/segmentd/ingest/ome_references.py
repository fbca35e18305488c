"""Which files an OME-XML speaks of: its own, the members of a set, the one with the metadata."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

from segmentd.ingest.memory import Memory
from segmentd.ingest.ome_reader import References, read_references, refuse
from segmentd.ingest.tiff_ome import text_of
from segmentd.ingest.verdict import StillOpenError

SHARED_REMEMBERED = 4

_FILE_NAME = re.compile(rb"\bFileName\s*=\s*(\"[^\"]*\"|'[^']*')")
_shared: Memory[bytes, References] = Memory(SHARED_REMEMBERED)


def may_refer(xml: bytes) -> bool:
    """Whether an OME-XML in a TIFF may speak of other files; quick."""
    if b"BinaryOnly" in xml:
        return True
    names = (match[1] for match in _FILE_NAME.finditer(xml))
    first = next(names, None)
    return any(name != first for name in names)


def references_in_tiff(description: bytes, name: bytes) -> References | None:
    """Return what the description of the TIFF `name` refers to; None where it stands for itself.

    Raises
    ------
    BadStructureError
        It names files outside its folder, too many of them, or not itself, or is damaged.
    """
    if not may_refer(description):
        return None
    try:
        found = _read_shared(text_of(description).encode(), name)
    except StillOpenError as error:
        refuse(f"has OME-XML that cannot be read ({error}); save it again")
    if found.metadata_file:
        if found.metadata_file == name:
            refuse("says that its metadata are in another file, which is itself; save it again")
        return found
    if len(found.files) < 2:
        return None
    if not found.own:
        names = b", ".join([*found.files][:3]).decode("utf-8", "replace")
        refuse(
            f"is part of an OME-TIFF set that does not name it ({names}, ...); rename it back",
            unsupported=True,
        )
    return found


def references_in_companion(xml: bytes, name: bytes) -> References:
    """Return what a companion file refers to.

    Raises
    ------
    StillOpenError
        It ends before its last element.
    BadStructureError
        As for a TIFF, or it has no planes of other files.
    """
    found = read_references(xml, name)
    if found.own or not found.files:
        refuse("names no other files with planes, or itself; save the set again")
    return found


def identity_in_tiff(description: bytes) -> References:
    """Return who a TIFF says it is, and where its metadata are; of the planes nothing.

    Raises
    ------
    BadStructureError
        As `references_in_tiff`.
    """
    try:
        return read_references(text_of(description).encode(), b"", brief=True)
    except StillOpenError as error:
        refuse(f"has OME-XML that cannot be read ({error}); save it again")


def _read_shared(xml: bytes, name: bytes) -> References:
    """Read the XML of one of many files in which it differs by the UUID of the file only."""
    uuid = identity_in_tiff(xml).uuid
    head, found, rest = xml.partition(uuid.encode() or b"\0")
    if not found:
        return read_references(xml, name)
    sha256 = hashlib.sha256(b"%d " % len(head) + head)
    sha256.update(rest)
    known = _shared.get(sha256.digest())
    if known is not None:
        own = next((file for file, named in known.files.items() if named.uuid == uuid), b"")
        return replace(known, uuid=uuid, own=own)
    read = read_references(xml, name)
    if all(named.uuid for named in read.files.values()):
        _shared.keep(sha256.digest(), read)
    return read
