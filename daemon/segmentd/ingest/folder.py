"""Watches one folder and hands over its files when they are complete.

Work is what a scan of the folder finds minus what the journal knows. Events only tell earlier; everything
they tell is looked up on the disk before it counts. Nothing but paths and stamps of files that are not yet
complete is kept, and of these a bounded number: the disk is the queue.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from segmentd.errors import Reason
from segmentd.ingest import reach
from segmentd.ingest.clock import Clock, MonotonicClock
from segmentd.ingest.events import Mail
from segmentd.ingest.found import FolderStatus, FoundFile
from segmentd.ingest.listen import Listener
from segmentd.ingest.names import input_filter
from segmentd.ingest.scan import Scan, Sighting, look, sight
from segmentd.ingest.set_waiting import SetWaiting
from segmentd.ingest.settle import GiveUp, Ready, Settle
from segmentd.records import FileStamp, WatchSpec

__all__ = ["FolderStatus", "FolderWatch", "FoundFile", "Ignore"]

PORTION = 500
CHECKS_AT_ONCE = 16
MAX_WAITING = 20_000
FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 30.0
ALIVE_SECONDS = 2.0
# After lost events a scan follows soon, but scans never take more than a part of the time.
SCAN_PAUSE_SECONDS = 0.2
SCAN_PAUSE_SHARE = 4.0

Known = Callable[[bytes, FileStamp], bool]
Ignore = Callable[[Sequence[Sighting]], Awaitable[None]]


Deliver = Callable[[FoundFile], Awaitable[None]]


class FolderWatch:
    """One watched folder: `run` does everything, `status` tells how it is doing.

    Parameters
    ----------
    spec : WatchSpec
        What to watch.
    clock : Clock, optional
        Another one for tests.
    """

    def __init__(self, spec: WatchSpec, clock: Clock | None = None) -> None:
        self._spec = spec
        self._clock = clock or MonotonicClock()
        self._folder = os.fsencode(spec.folder)
        self._wanted = input_filter(spec.include)
        self._skip = _own_folders(spec)
        self._settle = Settle(spec.settle_seconds, spec.give_up_seconds)
        self._sets = SetWaiting(self._settle, spec.give_up_seconds, self._wanted)
        self._state, self._state_reason = "starting", ""
        self._mode, self._mode_reason = "poll", ""
        self._ignore: Ignore | None = None  # while the first look is not finished
        self._unreadable: set[bytes] = set()
        self._beyond = 0  # files that wait on the disk only
        self._scan_seconds = 0.0
        self._looked = asyncio.Event()
        self._disk = reach.Disk(spec)

    async def first_look(self) -> None:
        """Wait until the folder was scanned once, or found to be out of reach."""
        await self._looked.wait()

    @property
    def status(self) -> FolderStatus:
        """State, mode, their reasons, and how many files wait."""
        reasons = (self._state, self._state_reason, self._mode, self._mode_reason)
        return FolderStatus(*reasons, waiting=len(self._settle) + self._beyond)

    @property
    def settle(self) -> Settle:
        """The files that are not complete yet."""
        return self._settle

    async def run(self, known: Known, deliver: Deliver, ignore: Ignore | None = None) -> None:
        """Watch until cancelled.

        Parameters
        ----------
        known : callable
            Whether a path with this stamp is in the journal, or in hand. Called in the loop for every file
            of every scan, so it must be quick.
        deliver : async callable
            Takes a file over, and may wait as long as it likes. What it raises ends `run`.
        ignore : async callable, optional
            Given all files that the first scan finds, in portions, at last an empty one: none of them is
            to be segmented as it is, and `known` has to say so.
        """
        self._ignore = ignore
        try:
            await self._watch(known, deliver)
        finally:
            self._disk.close()

    async def _watch(self, known: Known, deliver: Deliver) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            listener = self._listener()
            try:
                identity = await self._disk.call(reach.identity, self._spec)
                await listener.start()
                self._mode, self._mode_reason = listener.mode, listener.mode_reason
                await self._scan(b"", known)
                self._state, retry_seconds = "active", FIRST_RETRY_SECONDS
                self._looked.set()
                await self._serve(identity, listener, known, deliver)
            except reach.OutOfReachError as error:
                self._state, self._state_reason = "unreachable", str(error)
                self._looked.set()
            finally:
                await listener.stop()
            await self._clock.wait(asyncio.Event(), retry_seconds)
            retry_seconds = min(2 * retry_seconds, MAX_RETRY_SECONDS)

    def _listener(self) -> Listener:
        return Listener(self._folder, self._spec.recursive, self._skip, self._spec.poll, self._clock.now)

    async def _serve(
        self, identity: reach.Identity, listener: Listener, known: Known, deliver: Deliver
    ) -> None:
        """Look after a folder that was scanned once, until it is out of reach."""
        by_events = listener.mode == "events" or self._spec.poll == "never"
        interval = self._spec.rescan_seconds if by_events else self._spec.poll_seconds
        scan_at, alive_at = self._clock.now() + interval, self._clock.now() + ALIVE_SECONDS
        while True:
            mail = listener.take()
            self._mode_reason = listener.mode_reason
            await self._sight(mail, known)
            for folder in sorted(mail.folders):
                if self._inside(folder + b"/"):
                    await self._scan(folder, known)
            if mail.scan or (self._beyond and len(self._settle) < MAX_WAITING // 2):
                pause = max(SCAN_PAUSE_SECONDS, SCAN_PAUSE_SHARE * self._scan_seconds)
                scan_at = min(scan_at, self._clock.now() + pause)
            if self._clock.now() >= scan_at:
                await self._scan(b"", known)
                scan_at = self._clock.now() + interval
            await self._check(deliver, listener.local)
            if self._clock.now() >= alive_at:
                await self._check_alive(identity, listener)
                alive_at = self._clock.now() + ALIVE_SECONDS
            settle_at = self._settle.wake_at()
            next_at = min(scan_at, alive_at, alive_at if settle_at is None else settle_at)
            await self._clock.wait(listener.wake, max(0.0, next_at - self._clock.now()))

    async def _scan(self, start: bytes, known: Known) -> None:
        """Walk through the folder, or a subfolder, and take note of files that are not known."""
        began = self._clock.now()
        whole = start == b""
        ignore = self._ignore if whole else None
        if whole:
            self._beyond = 0
        scan = Scan(self._folder, self._wanted, self._skip, self._spec.recursive, start)
        while portion := await self._disk.call(scan.portion, PORTION):
            if ignore is not None:
                await ignore(portion)
                continue
            for sighting in portion:
                self._consider(sighting, began, known)
        if ignore is not None:
            await ignore([])
            self._ignore = None
        if whole:
            self._scan_seconds = self._clock.now() - began
            self._state_reason = scan.why_incomplete

    async def _sight(self, mail: Mail, known: Known) -> None:
        """Look up what events told: files that appeared or were closed by their writer."""
        # A close counts under any name: the file may be renamed into place next.
        inside = [(path, closed) for path, closed in mail.files.items() if self._inside(path)]
        paths = [path for path, closed in inside if closed or self._wanted(path)]
        if not paths:
            return
        now = self._clock.now()
        for sighting in await self._disk.call(sight, self._folder, paths):
            if mail.files[sighting.path]:
                self._settle.closed(sighting.stamp, mail.closed_at.get(sighting.path, now))
            if self._wanted(sighting.path):
                self._consider(sighting, now, known)

    def _inside(self, path: bytes) -> bool:
        """Whether a path is watched, as far as folders go."""
        if b"/" in path and not self._spec.recursive:
            return False
        return not any(path.startswith(folder + b"/") for folder in self._skip)

    def _consider(self, sighting: Sighting, now: float, known: Known) -> None:
        path, stamp = sighting.path, sighting.stamp
        if path not in self._settle:
            # A file that could not be read is tried again, although its stamp stays the same.
            if known(path, stamp) and path not in self._unreadable:
                return
            if len(self._settle) >= MAX_WAITING:
                self._beyond += 1
                return
        self._settle.sighted(path, stamp, now)

    async def _check(self, deliver: Deliver, local: bool) -> None:
        """Look at the files whose time has come, and hand over those that are decided."""
        checks = self._sets.to_look_at(self._settle.due(self._clock.now(), CHECKS_AT_ONCE), self._clock.now())
        if not checks:
            return
        try:
            looks = await self._disk.call(lambda: [look(self._folder, check.path, local) for check in checks])
        except reach.OutOfReachError:
            for check in checks:
                self._gone(check.path)  # for now: the first look after this finds them again
            raise
        for check, found in zip(checks, looks, strict=True):
            if found is None:
                self._gone(check.path)
            if found is None or check.path not in self._settle:  # decided with another file, just now
                continue
            now = self._clock.now()
            structure = self._sets.looked(check.path, found.stamp, found.structure, now)
            decided = self._settle.judged(check, found.stamp, structure, now, found.is_open)
            if decided is None:
                continue
            parts = self._sets.decided(decided, structure)
            if self._is_news(decided):
                fault = decided.fault if isinstance(decided, GiveUp) else None
                path, changed = self._folder + b"/" + decided.path, decided.changed_time
                times = (decided.complete_time, fault, changed)
                await deliver(FoundFile(decided.path, path, decided.stamp, *times, parts))

    def _gone(self, path: bytes) -> None:
        self._settle.gone(path)
        self._sets.gone(path, self._clock.now())

    def _is_news(self, decided: Ready | GiveUp) -> bool:
        """Whether to hand this over: that a file cannot be read is told once."""
        if not isinstance(decided, GiveUp) or decided.fault.reason != Reason.IMAGE_UNREADABLE:
            self._unreadable.discard(decided.path)
            return True
        if decided.path in self._unreadable:
            return False
        if len(self._unreadable) < MAX_WAITING:
            self._unreadable.add(decided.path)
        return True

    async def _check_alive(self, identity: reach.Identity, listener: Listener) -> None:
        if await self._disk.call(reach.identity, self._spec) != identity:
            raise reach.OutOfReachError(f"{self._spec.folder} was replaced by another folder")
        if not listener.healthy():
            raise reach.OutOfReachError(f"{self._spec.folder}: its file events ended")


def _own_folders(spec: WatchSpec) -> frozenset[bytes]:
    """Relative paths of the folders that lie in the watched one and are ours: of results and moved images."""
    own = [folder for folder in (spec.results, spec.move_to) if folder is not None and folder != spec.folder]
    return frozenset(
        os.fsencode(folder.relative_to(spec.folder)) for folder in own if folder.is_relative_to(spec.folder)
    )
