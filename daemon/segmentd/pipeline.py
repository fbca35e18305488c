"""The whole journey of an image: opened, checked, segmented plane by plane, made durable, published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from segmentd import crashpoints, telemetry
from segmentd.engine.lanes import Lane
from segmentd.engine.scheduler import Scheduler
from segmentd.engine.slot import Slot, Turn
from segmentd.errors import (
    FATAL_REASONS,
    GONE_REASONS,
    HOLD_REASONS,
    LEFT_REASONS,
    RETRIED_REASONS,
    Reason,
    SegmentdError,
)
from segmentd.ingest.folder import FoundFile
from segmentd.ingest.reach import within_reach
from segmentd.ingest.readers import open_image
from segmentd.models.registry import Lease, Registry
from segmentd.records import Fault, FileStamp, Segmentation, SegmentOptions, WatchSpec
from segmentd.renames import Ended, as_renamed
from segmentd.results.feed import Feed
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal
from segmentd.results.published import published_files
from segmentd.results.superseded import remove_superseded
from segmentd.segmentation import Early, Target, segment_image
from segmentd.telling import about, failure
from segmentd.threads import to_its_end
from segmentd.workers import WorkerPool

HOLD_SECONDS = 5.0
# An image that a worker process did not survive is tried again after these pauses, then it has failed.
RETRY_SECONDS = (1.0, 5.0)

NO_ROOM = SegmentdError(
    Reason.DISK_FULL,
    "the disk of the journal is full: what was in hand is recorded, no more is begun until there are 16 MiB "
    "free. Free some space there.",
)

_log = telemetry.get_logger(__name__)


@dataclass(frozen=True)
class Engine:
    """What computes: models, a lane, and who may use it when."""

    registry: Registry
    lane: Lane
    scheduler: Scheduler


class Pipeline:
    """Takes found files of one watch to the journal.

    Parameters
    ----------
    spec : WatchSpec
        The watch.
    engine, pool, journal, feed
        What computes, what decodes, what remembers, what tells subscribers.
    hold : callable
        Told why the watch waits, and "" when it goes on.
    ended : callable
        Told of each image that was recorded: how it ended, and its segmentations.
    judge : callable
        Told the segmentations of each image before they are recorded; may add to them.
    early : callable
        Gives what was computed of an image while it was being written.

    Attributes
    ----------
    held_by : Reason or None
        What the watch waits for.
    """

    def __init__(
        self,
        spec: WatchSpec,
        engine: Engine,
        pool: WorkerPool,
        journal: Journal,
        feed: Feed,
        hold: Callable[[str], None],
        ended: Callable[[ImageOutcome, Sequence[Segmentation]], None] = lambda outcome, records: None,
        judge: Callable[[list[Segmentation]], list[Segmentation]] = lambda records: records,
        early: Callable[[FileStamp, SegmentOptions], Early | None] = lambda stamp, options: None,
    ) -> None:
        self._spec = spec
        self._engine = engine
        self._pool = pool
        self._journal = journal
        self._feed = feed
        self._hold = hold
        self._suspects = asyncio.Lock()
        self._ended = ended
        self._judge = judge
        self._early = early
        self._retired = asyncio.Event()
        self.held_by: Reason | None = None

    def retire(self) -> None:
        """Let go of images that wait for something to be mended; the next scan finds them again."""
        self._retired.set()

    async def process(self, found: FoundFile, slot: Slot, model: str) -> None:
        """Bring one file to its end state: done, failed with a reason, or vanished.

        A file that changes under our hands is left to the next scan. `slot` is given back while the image
        waits for something that is not its fault; `model` is what the watch's model was found to be.

        Raises
        ------
        SegmentdError
            JOURNAL_NOT_WRITABLE: nothing more can be promised, the daemon has to end.
        """
        crashpoints.reach("found")
        try:
            await self._wait_for_room(slot)
            ended = await self._segment_with_retries(found, slot, model)
        except SegmentdError as error:
            if error.reason in FATAL_REASONS:
                raise
            if error.reason in LEFT_REASONS:
                return
            if error.reason in GONE_REASONS and not await asyncio.to_thread(within_reach, self._spec):
                return  # it is found again when the share is back
            fault = Fault(error.reason, error.message, error.metadata)
        except Exception as error:
            _log.error("image failed", exc_info=error, file=found.path)
            name = type(error).__name__
            fault = Fault(
                Reason.INTERNAL, f"internal error ({name}); the daemon's log has the details, report it"
            )
        else:
            if ended is not None:
                await self._record(slot, *ended)
            return
        finally:
            self._go_on()
        vanished = fault.reason == Reason.IMAGE_VANISHED
        state = ImageState.VANISHED if vanished else ImageState.FAILED
        (_log.info if vanished else _log.warning)(f"image {state}", file=found.path, why=fault.message)
        parts = () if vanished else found.parts
        outcome = ImageOutcome(self._spec.id, found.relative, found.stamp, state, fault=fault, parts=parts)
        if vanished:
            await self._record(slot, outcome, [])
        elif not await asyncio.to_thread(self._journal.failed_again, outcome):
            version = await asyncio.to_thread(self._journal.next_version, self._spec.id, found.relative, "")
            failed = failure(self._spec, found, fault, version)
            await self._record(slot, replace(outcome, version=version), [failed])

    async def _segment_with_retries(self, found: FoundFile, slot: Slot, model: str) -> Ended | None:
        if found.fault is not None:
            raise SegmentdError(Reason(found.fault.reason), found.fault.message, **found.fault.metadata)
        try:
            return await self._segment_when_possible(found, slot, model)
        except SegmentdError as error:
            if error.reason not in RETRIED_REASONS:
                raise
            last = error
        for pause in RETRY_SECONDS:
            _log.warning("image will be tried again", file=found.path, why=last.message)
            slot.release()
            async with self._suspects:  # one at a time, so that others get through
                await asyncio.sleep(pause)
                await slot.acquire()
                try:
                    return await self._segment_when_possible(found, slot, model)
                except SegmentdError as error:
                    if error.reason not in RETRIED_REASONS:
                        raise
                    last = error
        text = f"{last.message} (tried {1 + len(RETRY_SECONDS)} times); it is left alone until it changes"
        raise SegmentdError(last.reason, text, **last.metadata)

    async def _segment_when_possible(self, found: FoundFile, slot: Slot, model: str) -> Ended | None:
        while True:
            try:
                async with self._engine.registry.lease(model) as lease:
                    turn = Turn(slot, asyncio.get_running_loop())
                    return await to_its_end(self._segment, found, lease, turn)
            except SegmentdError as error:
                if error.reason not in HOLD_REASONS:
                    raise
                if not self._retired.is_set():
                    await self._wait(error, slot)
                if self._retired.is_set():
                    raise SegmentdError(Reason.IMAGE_CHANGED, "the watch was changed") from error

    async def _wait(self, error: SegmentdError, slot: Slot) -> None:
        """Wait a little for the cause to go, say why meanwhile, and keep nobody else waiting."""
        self.held_by = error.reason
        self._hold(error.message)
        slot.release()
        if self._retired.is_set():
            await asyncio.sleep(HOLD_SECONDS)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(HOLD_SECONDS):
                    await self._retired.wait()
        await slot.acquire()

    def _go_on(self) -> None:
        self.held_by = None
        self._hold("")

    async def _wait_for_room(self, slot: Slot) -> None:
        """Begin nothing while the journal lives on its reserve."""
        while self._journal.short_of_room and not await asyncio.to_thread(self._journal.regain_room):
            await self._wait(NO_ROOM, slot)

    def _segment(self, found: FoundFile, lease: Lease, turn: Turn) -> Ended | None:
        """The blocking part; None where this content has its results already."""
        spec = self._spec
        with open_image(
            self._pool, found.relative, folder=spec.folder, stamp=found.stamp, parts=found.parts
        ) as image:
            crashpoints.reach("opened")
            version = self._journal.next_version(spec.id, found.relative, "")
            seen = version > 1
            if seen:  # is there anything new in it?
                digest = image.content_digest
                if self._journal.has_results(spec.id, found.relative) and self._journal.same_content(
                    spec.id, found.relative, digest, found.stamp, found.parts
                ):
                    return None
                version = self._journal.next_version(spec.id, found.relative, digest)
            renamed = as_renamed(spec, self._journal, found, image)
            if renamed is not None:
                outcome, records = renamed
                return outcome, [about(spec, found, record, outcome.version) for record in records]
            target = Target.of(spec, found.relative)
            lane, recent = self._engine.lane, self._feed.recent
            show = self._feed.previews.of(spec.id, found.relative, found.path, version)
            records = segment_image(
                image,
                lease,
                lane,
                spec.options,
                target,
                recent=recent,
                turn=turn,
                show=show,
                early=self._early(found.stamp, spec.options),
            )
        files = published_files(records[0])
        if seen:
            remove_superseded(spec.results, self._journal.results_of(spec.id, found.relative), files)
        outcome = ImageOutcome(
            watch=spec.id,
            path=found.relative,
            stamp=found.stamp,
            state=ImageState.DONE,
            content_digest=records[0].content_digest,
            version=version,
            files=files,
            parts=found.parts,
        )
        return outcome, [about(spec, found, record, version) for record in records]

    async def _record(self, slot: Slot, outcome: ImageOutcome, records: list[Segmentation]) -> None:
        """Commit the image to the journal, then tell the subscribers."""
        crashpoints.reach("before-commit")
        records = self._judge(records)
        while True:
            try:
                with telemetry.stage("publish"):
                    await asyncio.to_thread(self._journal.record, outcome, records)
                break
            except SegmentdError as error:
                if error.reason is not Reason.DISK_FULL:
                    raise
                await self._wait(error, slot)
        self._go_on()
        self._feed.previews.drop(outcome.watch, outcome.path)
        crashpoints.reach("before-notify")
        self._feed.notify()
        self._ended(outcome, records)
