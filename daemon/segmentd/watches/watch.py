"""One watch: its folder, the pipeline its files go through, and how it is paused and changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256

from segmentd import telemetry
from segmentd.engine.slot import Slot
from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.folder import FolderWatch, FoundFile
from segmentd.models.bundle import reference_id
from segmentd.models.registry import Lease
from segmentd.moving import Mover
from segmentd.pipeline import HOLD_SECONDS, NO_ROOM, Pipeline
from segmentd.records import FileStamp
from segmentd.settings import WatchSettings
from segmentd.watches.alarm import DriftAlarm
from segmentd.watches.first_look import first_look
from segmentd.watches.growing import Growing
from segmentd.watches.hold import Hold, claimed
from segmentd.watches.in_hand import InHand, timeline_of
from segmentd.watches.parts import Parts
from segmentd.watches.status import WatchLoad, WatchStatus, status_of, warning_of
from segmentd.watches.tally import Tally

DISK_REASONS = (Reason.DISK_FULL, Reason.RESULTS_NOT_WRITABLE)


class Watch:
    """One watched folder and the pipeline its files go through.

    Parameters
    ----------
    settings : WatchSettings
        The watch.
    parts : Parts
        What it works with.
    configured : bool
        Whether it stands in the configuration file.
    paused : bool
        Whether it begins paused.
    admit : async callable
        Returns when the watch may begin, or raises SegmentdError with what is in its way.

    Attributes
    ----------
    tally : Tally
        What it has done since the daemon started.
    alarm : DriftAlarm
        Whether its images look like those before.
    """

    def __init__(
        self,
        settings: WatchSettings,
        parts: Parts,
        *,
        configured: bool,
        paused: bool = False,
        admit: Callable[[Watch], Awaitable[None]],
    ) -> None:
        self.configured = configured
        self.paused = paused
        self._parts = parts
        self._admit = admit
        self._hold = Hold(settings.id)
        self._in_hand = InHand()
        self._growing = Growing(parts, self._hold)
        self._delivering = 0
        self.tally = Tally()
        self.alarm = DriftAlarm(settings.id, parts.journal)
        self._halted = asyncio.Event()
        self._intake: asyncio.Task[None] | None = None
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._adopt(settings)

    @property
    def etag(self) -> str:
        """Another one for other settings, and for a paused watch."""
        text = f"{self.settings!r} {self.paused}"
        return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    async def run(self) -> None:
        """Take up files until cancelled; what is in hand goes on (see `finish`).

        Raises
        ------
        SegmentdError
            The journal takes no more entries.
        """
        try:
            while True:
                self._intake = asyncio.create_task(self._take_up(), name=f"intake-{self.spec.id}")
                await asyncio.wait([self._intake, self._broken], return_when=asyncio.FIRST_COMPLETED)
                if self._broken.done():
                    self._broken.result()
                if not self._intake.cancelled():
                    self._intake.result()
                # Else it was changed: begin anew.
        finally:
            await self._stop_intake()

    async def change(self, settings: WatchSettings | None = None, paused: bool | None = None) -> None:
        """Take over other settings, pause, or go on.

        Returns when nothing is taken up in the old way any more. An image that is being segmented is
        finished as it was begun; one that waits for something to be mended is taken up anew.

        Raises
        ------
        SegmentdError
            LOCKED, where another process has a folder; the change is made, and the watch waits.
        """
        if paused is not None:
            self.paused = paused
        if settings is not None:
            self._pipeline.retire()
        claim = self._claim
        self._adopt(settings or self.settings)
        await self._stop_intake()
        await self.claim()
        claim.release()

    async def retire(self) -> None:
        """Take up nothing more; what is being segmented goes on (see `finish`)."""
        self._pipeline.retire()
        await self._stop_intake()

    async def first_scan(self) -> None:
        """Wait until the folder has been looked at once, or is not going to be for now."""
        waits = [asyncio.create_task(wait) for wait in (self._folder.first_look(), self._halted.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def finish(self) -> None:
        """Wait for the files in hand."""
        await self._in_hand.finish()

    async def claim(self) -> None:
        """Have the folders for ourselves; LOCKED where another process has one."""
        await asyncio.to_thread(self._claim.hold)

    def release(self) -> None:
        """Give up the claim on the folders."""
        self._claim.release()

    def let_go(self) -> None:
        """Give up files that wait for something to be mended; the next start does them again."""
        if self._hold.reason:
            self.abandon()

    def abandon(self) -> None:
        """Give up the files in hand; the next start does them again."""
        self._in_hand.abandon()

    async def status(self) -> WatchStatus:
        """How the watch fares now."""
        journal = self._parts.journal
        counts, faults = await asyncio.to_thread(
            lambda: (journal.counts(self.spec.id), journal.result_faults(self.spec.id))
        )
        hold_reason = self._hold.reason or (NO_ROOM.message if journal.short_of_room else "")
        warnings = tuple(filter(None, (self._mover.trouble, self.alarm.warning, warning_of(faults))))
        model = reference_id(self.spec.model)
        return status_of(self._folder.status, self.paused, hold_reason, model, counts, warnings, self.load())

    @property
    def held(self) -> str:
        """Why the watch waits; empty while it goes on."""
        return self._hold.reason

    @property
    def waits_for_disk(self) -> bool:
        """Whether images wait because a disk is full or cannot be written to."""
        return self._pipeline.held_by in DISK_REASONS or self._parts.journal.short_of_room

    def load(self) -> WatchLoad:
        """How busy the watch is now."""
        waiting = self._folder.status.waiting + self._delivering + len(self._in_hand)
        return WatchLoad(waiting, *self.tally.last_minute.totals())

    def _adopt(self, settings: WatchSettings) -> None:
        self.settings = settings
        self.spec = settings.spec()
        parts = self._parts
        self._folder = FolderWatch(self.spec)
        self._mover = Mover(self.spec)
        self._claim = parts.claim_of(self.spec)
        self.alarm.enabled = settings.drift_alarm
        self._pipeline = Pipeline(
            self.spec,
            parts.engine,
            parts.pool,
            parts.journal,
            parts.feed,
            self._hold,
            self.tally.add,
            self.alarm.judge,
            self._growing.early,
        )

    async def _take_up(self) -> None:
        """Take up files in the way that is set now, until cancelled."""
        self._hold("")
        folder, pipeline = self._folder, self._pipeline
        async with AsyncExitStack() as stack:
            if self.paused:
                self._halted.set()
                await asyncio.Event().wait()  # until `change`
            # The lease keeps the model loaded while the watch is active. The model was found once: a
            # second one of the same name does not change what a running watch uses.
            lease = await self._begin(stack)
            mover = asyncio.create_task(self._mover.run())
            stack.callback(mover.cancel)
            await self.alarm.remember()
            ignore = await first_look(self.spec, self._parts.journal)
            growing = asyncio.create_task(self._growing.run(folder, self.spec, str(lease.path)))
            stack.callback(growing.cancel)
            await folder.run(self._known, partial(self._deliver, pipeline, str(lease.path)), ignore)

    async def _begin(self, stack: AsyncExitStack) -> Lease:
        """Get what is needed to begin; wait as long as something is in the way, and say what."""
        while True:
            try:
                await self._admit(self)
                lease = await stack.enter_async_context(self._parts.engine.registry.lease(self.spec.model))
            except SegmentdError as error:
                self._hold(error.message)
                self._halted.set()
                await asyncio.sleep(HOLD_SECONDS)
            else:
                self._hold("")
                return lease

    async def _stop_intake(self) -> None:
        # Again and again, since code on the way may lose a cancellation (`asyncio.wait_for` before 3.12).
        intake = self._intake
        while intake is not None and not intake.done():
            intake.cancel()
            await asyncio.wait([intake], timeout=1.0)

    def _known(self, path: bytes, stamp: FileStamp) -> bool:
        in_work = self._in_hand.stamp(path)
        if in_work is not None:
            return in_work == stamp
        known = self._parts.journal.known(self.spec.id, path, stamp)
        if known:
            self._want_moved(path, stamp)
        return known

    def _want_moved(self, path: bytes, stamp: FileStamp) -> None:
        if self.spec.move_to is not None and self._parts.journal.is_done(self.spec.id, path, stamp):
            self._mover.want(path, stamp, keep_name=self._parts.journal.in_set(self.spec.id, path))

    async def _deliver(self, pipeline: Pipeline, model: str, found: FoundFile) -> None:
        telemetry.observe("settle", time.monotonic() - found.changed_time_monotonic)
        self._delivering += len(found.files)
        try:
            slot = await self._slot_for(found, model)
        except BaseException:
            self._growing.ended(found.stamp)
            raise
        finally:
            self._delivering -= len(found.files)
        work = telemetry.traced(
            pipeline.process(found, slot, model), partial(timeline_of, self.spec.id, found)
        )
        task = asyncio.create_task(work, name=f"image-{self.spec.id}")
        self._in_hand.add(found, task)
        task.add_done_callback(lambda done: self._done(found, slot, done))

    async def _slot_for(self, found: FoundFile, model: str) -> Slot:
        await self._growing.hand_over(found.stamp)
        # The file may have changed while its earlier content is in work: one after the other.
        await self._in_hand.end_of(found.relative)
        await claimed(self._claim, self._hold, HOLD_SECONDS)
        await self._hold.over()
        slot = Slot(self._parts.engine.scheduler, self.spec.id, self.spec.priority, model)
        with telemetry.stage("queue"):
            await slot.acquire()
        return slot

    def _done(self, found: FoundFile, slot: Slot, task: asyncio.Task[None]) -> None:
        slot.release()
        self._in_hand.remove(found)
        self._growing.ended(found.stamp)
        for file in found.files:
            self._want_moved(file.path, file.stamp)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)
