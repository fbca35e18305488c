"""Which files are complete: lists of events, and what must come of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segmentd.errors import Reason
from segmentd.ingest.settle import CLOSES_REMEMBERED, GiveUp, Ready, Settle
from segmentd.ingest.verdict import CLOSED, Structure, Verdict
from segmentd.records import Fault, FileStamp

SETTLE, GIVE_UP = 2.0, 10.0
A, B = FileStamp(100, 1, 7, 1), FileStamp(200, 2, 7, 1)
OPEN = Structure(Verdict.OPEN, Fault(Reason.IMAGE_INCOMPLETE, "x.tif is incomplete"))
BAD = Structure(Verdict.BAD, Fault(Reason.IMAGE_UNSUPPORTED, "x.tif is not an image"))

# Steps: ("sight", at, stamp), ("close", at, stamp), ("gone", at, None), and
# ("check", at, (stamp, structure[, is_open])): at this time, and not before, the file is to be looked at, and
# this is what the look finds.
STORIES = {
    "quiet and closed": ([("sight", 0, A), ("check", 2, (A, CLOSED))], Ready(b"x", A, 2)),
    "sightings of the same stamp change nothing": (
        [("sight", 0, A), ("sight", 1, A), ("check", 2, (A, CLOSED))],
        Ready(b"x", A, 2),
    ),
    "closed by its writer: at once": (
        [("sight", 0, A), ("close", 0.5, A), ("check", 0.5, (A, CLOSED))],
        Ready(b"x", A, 0.5),
    ),
    "closed before it is seen: at once, complete since it was closed": (
        [("close", 0, A), ("sight", 1, A), ("check", 1, (A, CLOSED))],
        Ready(b"x", A, 0),
    ),
    "closed, but its structure is open: waits like any other": (
        [
            ("close", 0, A),
            ("sight", 0, A),
            ("check", 0, (A, OPEN)),
            ("check", 2, (A, OPEN)),
            ("check", 10, (A, CLOSED)),
        ],
        Ready(b"x", A, 0),
    ),
    "closed with another stamp than it has: not at once": (
        [("close", 0, A), ("sight", 0, B), ("check", 2, (B, CLOSED))],
        Ready(b"x", B, 2),
    ),
    "growing: the quiet time starts anew": (
        [("sight", 0, A), ("sight", 1, B), ("check", 3, (B, CLOSED))],
        Ready(b"x", B, 3),
    ),
    "grown since it was last seen: the look finds out": (
        [("sight", 0, A), ("check", 2, (B, CLOSED)), ("check", 4, (B, CLOSED))],
        Ready(b"x", B, 4),
    ),
    "open for good: given up": (
        [("sight", 0, A), ("check", 2, (A, OPEN)), ("check", 10, (A, OPEN))],
        GiveUp(b"x", A, 10, OPEN.fault or Fault("", "")),
    ),
    "open, then mended without a change of the stamp": (
        [("sight", 0, A), ("check", 2, (A, OPEN)), ("check", 10, (A, CLOSED))],
        Ready(b"x", A, 10),
    ),
    "open, grows while it is waited for": (
        [("sight", 0, A), ("check", 2, (A, OPEN)), ("sight", 9, B), ("check", 11, (B, CLOSED))],
        Ready(b"x", B, 11),
    ),
    "open for writing: waited for longer": (
        [("sight", 0, A), *(("check", at, (A, CLOSED, True)) for at in (2, 4, 6, 8, 10))],
        Ready(b"x", A, 10),
    ),
    "open for writing, and closed unseen": (
        [("sight", 0, A), ("check", 2, (A, CLOSED, True)), ("check", 4, (A, CLOSED))],
        Ready(b"x", A, 4),
    ),
    "no image and open for writing: may become one": (
        [("sight", 0, A), ("check", 2, (A, BAD, True)), ("check", 4, (A, CLOSED))],
        Ready(b"x", A, 4),
    ),
    "open for writing, then closed without a change": (
        [("sight", 0, A), ("check", 2, (A, CLOSED, True)), ("close", 3, A), ("check", 3, (A, CLOSED))],
        Ready(b"x", A, 3),
    ),
    "no image and quiet: given up at once": (
        [("sight", 0, A), ("check", 2, (A, BAD))],
        GiveUp(b"x", A, 2, BAD.fault or Fault("", "")),
    ),
    "no image yet when closed: may be opened again": (
        [
            ("close", 0, A),
            ("sight", 0, A),
            ("check", 0, (A, BAD)),
            ("sight", 1, B),
            ("check", 3, (B, CLOSED)),
        ],
        Ready(b"x", B, 3),
    ),
    "changed while it was looked at: the look does not count": (
        [
            ("sight", 0, A),
            ("check-begins", 2, A),
            ("sight", 2.5, B),
            ("check-ends", 3, (A, CLOSED)),
            ("check", 4.5, (B, CLOSED)),
        ],
        Ready(b"x", B, 4.5),
    ),
    "closed while it was looked at": (
        [("sight", 0, A), ("check-begins", 2, A), ("close", 2.5, A), ("check-ends", 3, (A, CLOSED))],
        Ready(b"x", A, 2.5),
    ),
    "gone": ([("sight", 0, A), ("gone", 1, None)], None),
    "gone while it was looked at": (
        [("sight", 0, A), ("check-begins", 2, A), ("gone", 2, None), ("check-ends", 3, (A, CLOSED))],
        None,
    ),
    "gone and there again while it was looked at: it settles again": (
        [
            ("sight", 0, A),
            ("check-begins", 2, A),
            ("gone", 2.5, None),
            ("sight", 3, A),
            ("check-ends", 3.5, (A, CLOSED)),
            ("check", 5, (A, CLOSED)),
        ],
        Ready(b"x", A, 5),
    ),
    "gone and there again": (
        [("sight", 0, A), ("gone", 1, None), ("sight", 1.5, A), ("check", 3.5, (A, CLOSED))],
        Ready(b"x", A, 3.5),
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_story(story: str) -> None:
    steps, expected = STORIES[story]
    settle = Settle(SETTLE, GIVE_UP)
    outcome = None
    for kind, now, detail in steps:
        if not kind.startswith("check"):
            assert settle.due(now - 0.01, 10) == []
        if kind == "sight":
            settle.sighted(b"x", detail, now)
        elif kind == "close":
            settle.closed(detail, now)
            if b"x" in settle:
                settle.sighted(b"x", detail, now)
        elif kind == "gone":
            settle.gone(b"x")
        if kind in ("check", "check-begins"):
            assert settle.due(now - 0.01, 10) == []
            assert settle.wake_at() == now
            [check] = settle.due(now, 10)
            assert settle.wake_at() is None
        if kind in ("check", "check-ends"):
            outcome = settle.judged(check, *detail[:2], now, *detail[2:])
    assert outcome == expected
    assert len(settle) == 0
    assert settle.wake_at() is None
    assert settle.due(1e9, 10) == []


def test_a_given_up_file_starts_anew_when_it_changes() -> None:
    settle = Settle(SETTLE, GIVE_UP)
    settle.sighted(b"x", A, 0)
    [check] = settle.due(2, 10)
    assert isinstance(settle.judged(check, A, BAD, 2), GiveUp)
    settle.sighted(b"x", B, 50)
    [check] = settle.due(52, 10)
    assert settle.judged(check, B, CLOSED, 52) == Ready(b"x", B, 52)


def test_what_is_due_longest_and_is_older_comes_first() -> None:
    settle = Settle(SETTLE, GIVE_UP)
    for path, mtime, now in ((b"late", 1, 1), (b"new", 30, 0), (b"old", 10, 0), (b"older", 5, 0)):
        settle.sighted(path, replace(A, mtime_ns=mtime), now)
    assert [check.path for check in settle.due(5, 2)] == [b"older", b"old"]
    assert [check.path for check in settle.due(5, 9)] == [b"new", b"late"]


def test_giving_up_never_comes_before_settling() -> None:
    settle = Settle(5.0, 1.0)
    settle.sighted(b"x", A, 0)
    assert settle.due(4.9, 1) == []
    [check] = settle.due(5, 1)
    assert isinstance(settle.judged(check, A, OPEN, 5), GiveUp)


def test_closes_are_remembered_within_bounds() -> None:
    settle = Settle(SETTLE, GIVE_UP)
    for inode in range(CLOSES_REMEMBERED + 1):
        settle.closed(replace(A, inode=inode), 0)
    settle.sighted(b"forgotten", replace(A, inode=0), 0)
    settle.sighted(b"known", replace(A, inode=1), 0)
    assert [check.path for check in settle.due(0, 9)] == [b"known"]


class SettleMachine(RuleBasedStateMachine):
    """Files on a disk that grow, are closed, renamed and deleted at any time, against the promises."""

    def __init__(self) -> None:
        super().__init__()
        self.settle = Settle(SETTLE, GIVE_UP)
        self.now = 0.0
        self.disk: dict[bytes, tuple[FileStamp, Structure]] = {}
        self.changed_at: dict[FileStamp, float] = {}
        self.closed: set[FileStamp] = set()
        self.seen_at: dict[bytes, tuple[FileStamp, float]] = {}
        self.last_stamp = 0

    def write(self, path: bytes, structure: Structure) -> None:
        self.last_stamp += 1
        stamp = FileStamp(self.last_stamp, 1000 - self.last_stamp, 1, 1)
        self.disk[path] = (stamp, structure)
        self.changed_at[stamp] = self.now

    paths = st.sampled_from([b"a", b"b", b"c"])

    @rule(path=paths, structure=st.sampled_from([CLOSED, OPEN, BAD]))
    def change(self, path: bytes, structure: Structure) -> None:
        self.write(path, structure)

    @rule(path=paths)
    def close_with_event(self, path: bytes) -> None:
        if path in self.disk:
            stamp = self.disk[path][0]
            self.closed.add(stamp)
            self.settle.closed(stamp, self.now)
            self.sight(path)

    @rule(path=paths)
    def sight(self, path: bytes) -> None:
        if path in self.disk:
            stamp = self.disk[path][0]
            if self.seen_at.get(path, (None, 0))[0] != stamp or path not in self.settle:
                self.seen_at[path] = (stamp, self.now)
            self.settle.sighted(path, stamp, self.now)

    @rule(path=paths)
    def delete(self, path: bytes) -> None:
        self.disk.pop(path, None)

    @rule(old=paths, new=paths)
    @precondition(lambda self: self.disk)
    def rename(self, old: bytes, new: bytes) -> None:
        if old in self.disk and old != new:
            self.disk[new] = self.disk.pop(old)

    @rule(seconds=st.floats(0.01, 12))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def look_at_what_is_due(self) -> None:
        for check in self.settle.due(self.now, 2):
            if check.path not in self.disk:
                self.settle.gone(check.path)
                continue
            stamp, structure = self.disk[check.path]
            outcome = self.settle.judged(check, stamp, structure, self.now)
            if outcome is None:
                if check.stamp != stamp:
                    self.seen_at[check.path] = (stamp, self.now)
                continue
            seen_stamp, seen_at = self.seen_at[check.path]
            assert outcome.stamp == stamp == seen_stamp
            quiet = self.now - seen_at >= SETTLE - 1e-9
            if isinstance(outcome, Ready):
                assert structure is CLOSED
                assert stamp in self.closed or quiet
                assert outcome.complete_time <= self.now
            else:
                assert structure is not CLOSED
                assert outcome.fault is structure.fault
                assert quiet
                assert structure is BAD or self.now - seen_at >= GIVE_UP - 1e-9
            assert check.path not in self.settle

    @invariant()
    def everything_that_waits_is_looked_at_in_time(self) -> None:
        wake_at = self.settle.wake_at()
        assert (wake_at is None) == (len(self.settle) == 0)
        if wake_at is not None:
            assert wake_at <= self.now + GIVE_UP


TestSettleMachine = SettleMachine.TestCase
TestSettleMachine.settings = settings(max_examples=40, stateful_step_count=40)
