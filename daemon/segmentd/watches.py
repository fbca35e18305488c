"""Watch resources: one running pipeline for each active watch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from segmentd import telemetry
from segmentd.engine.scheduler import Slot
from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.folder import FolderWatch, FoundFile, Ignore
from segmentd.ingest.names import printable
from segmentd.ingest.scan import Sighting
from segmentd.models.bundle import reference_id
from segmentd.moving import Mover
from segmentd.pipeline import HOLD_SECONDS, NO_ROOM, Engine, Pipeline
from segmentd.process.claims import Claims
from segmentd.records import FileStamp, Segmentation, WatchSpec
from segmentd.results.feed import Feed
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal
from segmentd.workers import WorkerPool

DISK_REASONS = (Reason.DISK_FULL, Reason.RESULTS_NOT_WRITABLE)
_log = telemetry.get_logger(__name__)


@dataclass(frozen=True)
class WatchStatus:
    """How a watch fares, for people and for the API."""

    state: str
    state_reason: str
    mode: str
    mode_reason: str
    model: str
    done: int
    failed: int
    ignored: int
    waiting: int
    warnings: tuple[str, ...]


class Watch:
    """One watched folder and the pipeline its files go through.

    Parameters
    ----------
    spec : WatchSpec
        The watch.
    engine, pool, journal, feed
        See `segmentd.pipeline.Pipeline`.
    claims : Claims
        What this process has for itself; folder and results become part of it.
    """

    def __init__(
        self, spec: WatchSpec, engine: Engine, pool: WorkerPool, journal: Journal, feed: Feed, claims: Claims
    ) -> None:
        self.spec = spec
        self._engine = engine
        self._journal = journal
        self._folder = FolderWatch(spec)
        self._claim = claims.claim(spec.folder, spec.results, subject=f"watch '{spec.id}'")
        self._pipeline = Pipeline(spec, engine, pool, journal, feed, self._hold)
        self._mover = Mover(spec)
        self._hold_reason = ""
        self._in_hand: dict[bytes, tuple[FileStamp, asyncio.Task[None]]] = {}
        self._delivering = 0
        self._going_on = asyncio.Event()
        self._going_on.set()
        self._model = spec.model
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Take up files until cancelled; what is in hand goes on (see `finish`).

        Raises
        ------
        SegmentdError
            The journal takes no more entries.
        """
        # The lease keeps the model loaded while the watch is active.
        async with self._engine.registry.lease(self.spec.model) as lease:
            # Found once: a second model of the same name does not change what a running watch uses.
            self._model = str(lease.path)
            ignore = await self._first_look()
            folder = asyncio.create_task(self._folder.run(self._known, self._deliver, ignore))
            mover = asyncio.create_task(self._mover.run())
            try:
                await asyncio.wait([folder, self._broken], return_when=asyncio.FIRST_COMPLETED)
                (folder if folder.done() else self._broken).result()
            finally:
                folder.cancel()
                mover.cancel()
                await asyncio.gather(folder, mover, return_exceptions=True)

    async def first_scan(self) -> None:
        """Wait until the folder has been looked at once."""
        await self._folder.first_look()

    async def finish(self) -> None:
        """Wait for the files in hand."""
        if self._in_hand:
            await asyncio.wait([task for _, task in self._in_hand.values()])

    def let_go(self) -> None:
        """Give up files that wait for something to be mended; the next start does them again."""
        if self._hold_reason:
            self.abandon()

    def abandon(self) -> None:
        """Give up the files in hand; the next start does them again."""
        for _, task in self._in_hand.values():
            task.cancel()

    @property
    def held(self) -> str:
        """Why the watch waits; empty while it goes on."""
        return self._hold_reason

    @property
    def waits_for_disk(self) -> bool:
        """Whether images wait because a disk is full or cannot be written to."""
        return self._pipeline.held_by in DISK_REASONS or self._journal.short_of_room

    def status(self) -> WatchStatus:
        """How the watch fares now."""
        folder = self._folder.status
        counts = self._journal.counts(self.spec.id)
        state, reason = folder.state, folder.state_reason
        hold_reason = self._hold_reason or (NO_ROOM.message if self._journal.short_of_room else "")
        if hold_reason:
            state, reason = "failed", hold_reason
        return WatchStatus(
            state,
            reason,
            folder.mode,
            folder.mode_reason,
            reference_id(self.spec.model),
            counts.get(ImageState.DONE, 0),
            counts.get(ImageState.FAILED, 0),
            counts.get(ImageState.IGNORED, 0),
            folder.waiting + self._delivering + len(self._in_hand),
            self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        faults = self._journal.result_faults(self.spec.id)
        text = ""
        if faults.example:
            text = (
                f"results are missing ({faults.missing}) or damaged ({faults.damaged}), for example "
                f"{printable(faults.example)}: restore them, or touch the images to have them made anew"
            )
        return tuple(filter(None, (self._mover.trouble, text)))

    def _known(self, path: bytes, stamp: FileStamp) -> bool:
        if path in self._in_hand:
            return self._in_hand[path][0] == stamp
        known = self._journal.known(self.spec.id, path, stamp)
        if known:
            self._want_moved(path, stamp)
        return known

    def _want_moved(self, path: bytes, stamp: FileStamp) -> None:
        if self.spec.move_to is not None and self._journal.is_done(self.spec.id, path, stamp):
            self._mover.want(path, stamp)

    async def _first_look(self) -> Ignore | None:
        """What to do with files that are there when the watch is new; it is decided once and for all."""
        if not await asyncio.to_thread(self._journal.is_new, self.spec.id):
            return None
        if self.spec.existing == "ignore":
            return self._ignore
        await asyncio.to_thread(self._journal.finish_first_look, self.spec.id)
        return None

    async def _ignore(self, files: Sequence[Sighting]) -> None:
        """Take note of what the first look at the folder finds; an empty portion is the end of it."""
        watch = self.spec.id
        ignored: list[tuple[ImageOutcome, Sequence[Segmentation]]] = [
            (ImageOutcome(watch, file.path, file.stamp, ImageState.IGNORED), ())
            for file in files
            if not self._journal.known(watch, file.path, file.stamp)
        ]
        await asyncio.to_thread(self._journal.record_many, ignored)
        if not files:
            await asyncio.to_thread(self._journal.finish_first_look, watch)

    async def _deliver(self, found: FoundFile) -> None:
        self._delivering += 1
        try:
            slot = await self._slot_for(found)
        finally:
            self._delivering -= 1
        work = self._pipeline.process(found, slot, self._model)
        task = asyncio.create_task(work, name=f"image-{self.spec.id}")
        self._in_hand[found.relative] = (found.stamp, task)
        task.add_done_callback(lambda done: self._done(found, slot, done))

    async def _slot_for(self, found: FoundFile) -> Slot:
        if found.relative in self._in_hand:
            # The file changed while its earlier content is in work: one after the other.
            await asyncio.wait([self._in_hand[found.relative][1]])
        await self._claim_folders()
        await self._going_on.wait()
        slot = Slot(self._engine.scheduler, self.spec.id, self.spec.priority)
        await slot.acquire()
        return slot

    async def _claim_folders(self) -> None:
        """Have the folders for ourselves, also one that was missing so far."""
        while True:
            try:
                await asyncio.to_thread(self._claim.hold)
                return
            except SegmentdError as error:
                self._hold(error.message)
                await asyncio.sleep(HOLD_SECONDS)
                self._hold("")

    def _done(self, found: FoundFile, slot: Slot, task: asyncio.Task[None]) -> None:
        slot.release()
        del self._in_hand[found.relative]
        self._want_moved(found.relative, found.stamp)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)

    def _hold(self, reason: str) -> None:
        """Take up no more files while there is a reason to wait."""
        if reason and reason != self._hold_reason:
            _log.warning("watch waits", watch=self.spec.id, why=reason)
        self._hold_reason = reason
        if reason:
            self._going_on.clear()
        else:
            self._going_on.set()


class Watches:
    """All watches by id."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = {watch.spec.id: watch for watch in watches}

    def list(self) -> list[Watch]:
        """All watches, by id."""
        return [self._watches[key] for key in sorted(self._watches)]

    def get(self, watch_id: str) -> Watch:
        """Find a watch by its id; WATCH_NOT_FOUND where there is none."""
        watch = self._watches.get(watch_id)
        if watch is None:
            known = ", ".join(sorted(self._watches)) or "none"
            raise SegmentdError(
                Reason.WATCH_NOT_FOUND,
                f"there is no watch '{watch_id}' (watches: {known})",
                resource=f"watches/{watch_id}",
            )
        return watch
