"""Files that wait for the one that stands for their set. Pure, as `settle`, whose files they are.

A member is looked at once; after that it waits until its leader is decided. While there is no leader, each
member that joins starts the time anew after which all of them are given up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from segmentd.errors import Reason
from segmentd.ingest.names import printable
from segmentd.ingest.settle import Check, GiveUp, Ready, Settle
from segmentd.ingest.verdict import Structure, Verdict
from segmentd.records import Fault, FilePart, FileStamp


@dataclass(slots=True)
class _Group:
    """The files that wait for one leader, and what the last look at that one found."""

    joined_at: float
    members: dict[bytes, FileStamp] = field(default_factory=dict)
    seen: dict[bytes, FileStamp] = field(default_factory=dict)
    missing: set[bytes] = field(default_factory=set)


class SetWaiting:
    """Which files wait for which others.

    Parameters
    ----------
    settle : Settle
        Where all of them are.
    give_up_seconds : float
        How long members without a leader are waited for after the last of them came.
    wanted : callable
        Whether a path is an input of the watch.
    """

    def __init__(self, settle: Settle, give_up_seconds: float, wanted: Callable[[bytes], bool]) -> None:
        self._settle = settle
        self._give_up_seconds = give_up_seconds
        self._wanted = wanted
        self._groups: dict[bytes, _Group] = {}
        self._leaders: dict[bytes, bytes] = {}  # by member

    def to_look_at(self, checks: list[Check], now: float) -> list[Check]:
        """Leave out the members whose turn has not come; they are put off."""
        return [check for check in checks if not self._put_off(check.path, now)]

    def _put_off(self, path: bytes, now: float) -> bool:
        leader = self._leaders.get(path)
        if leader is None:
            return False
        if leader in self._settle:
            until = now + self._give_up_seconds
        else:
            until = self._groups[leader].joined_at + self._give_up_seconds
        if until > now:
            self._settle.put_off(path, until)
        return until > now

    def looked(self, path: bytes, stamp: FileStamp, structure: Structure, now: float) -> Structure:
        """Take note of what a look found; returns what to judge the file by."""
        if not structure.leader:
            self._leave(path)
            if structure.parts or structure.missing:
                group = self._groups.setdefault(path, _Group(now))
                group.seen = {part.path: part.stamp for part in structure.parts}
                group.missing = set(structure.missing)
            return structure
        leader = beside(path, structure.leader)
        if not self._wanted(leader):
            self._leave(path)
            return replace(structure, verdict=Verdict.OPEN, fault=_left_out(path, leader))
        self._join(path, stamp, leader, now)
        if structure.verdict is Verdict.PART and structure.leader_stamp is not None:
            self._tell_leader(path, stamp, leader, structure.leader_stamp, now)
        return structure

    def _join(self, path: bytes, stamp: FileStamp, leader: bytes, now: float) -> None:
        if self._leaders.get(path) != leader:
            self._leave(path)
        group = self._groups.setdefault(leader, _Group(now))
        if group.members.get(path) != stamp:
            group.joined_at = now
        group.members[path] = stamp
        self._leaders[path] = leader

    def _tell_leader(
        self, path: bytes, stamp: FileStamp, leader: bytes, leader_stamp: FileStamp, now: float
    ) -> None:
        """Have the leader looked at again when the last of its members has come, or one has changed."""
        if leader not in self._settle:
            self._settle.sighted(leader, leader_stamp, now)
            self._settle.hurry(leader, now)
            return
        group, name = self._groups[leader], path.rpartition(b"/")[2]
        if group.seen.get(name) != stamp:
            group.seen[name] = stamp
            group.missing.discard(name)
            if not group.missing:
                self._settle.hurry(leader, now)

    def gone(self, path: bytes, now: float) -> None:
        """Take note that a file is not there any more; those that wait for it go on for a while."""
        self._leave(path)
        group = self._groups.get(path)
        if group is not None and group.members:
            group.joined_at = now
        elif group is not None:
            del self._groups[path]

    def decided(self, decided: Ready | GiveUp, structure: Structure) -> tuple[FilePart, ...]:
        """Return the files that a decided one stands for; they wait no longer."""
        path = decided.path
        self._leave(path)
        group = self._groups.pop(path, None)
        parts = {beside(path, part.path): part.stamp for part in structure.parts}
        if group is not None and isinstance(decided, GiveUp) and not parts:
            parts = group.members  # it could not be read, so it does not say which ones
        for member in parts:
            self._settle.gone(member)
        for member in [] if group is None else group.members:
            del self._leaders[member]
        return tuple(FilePart(member, stamp) for member, stamp in parts.items() if self._wanted(member))

    def _leave(self, path: bytes) -> None:
        leader = self._leaders.pop(path, None)
        if leader is not None:
            group = self._groups[leader]
            del group.members[path]
            if not group.members:
                del self._groups[leader]


def beside(path: bytes, name: bytes) -> bytes:
    """Return the path of a file in the same folder."""
    folder, slash, _ = path.rpartition(b"/")
    return folder + slash + name


def _left_out(path: bytes, leader: bytes) -> Fault:
    name, shown = printable(path), printable(leader)
    text = f"{name} is part of the set of {shown}, which the watch leaves out; let its `include` match that"
    return Fault(Reason.IMAGE_UNSUPPORTED, text, {"file": name})
