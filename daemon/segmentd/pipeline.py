"""The whole journey of an image: opened, checked, segmented plane by plane, made durable, published."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentd import telemetry
from segmentd.engine.ahead import one_ahead
from segmentd.engine.lane import CpuLane
from segmentd.engine.scheduler import Scheduler
from segmentd.engine.segmenter import BandResult, Tally
from segmentd.engine.source import ArraySource, PlaneSource, streamed_band_rows
from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.folder import FoundFile
from segmentd.ingest.readers import OpenImage, open_image
from segmentd.models.bundle import reference_id
from segmentd.models.fit import used_channels
from segmentd.models.registry import Lease, Registry
from segmentd.records import (
    Fault,
    ModelCard,
    PlaneIndex,
    Segmentation,
    SegmentationState,
    SegmentOptions,
    WatchSpec,
)
from segmentd.results.feed import Feed
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal
from segmentd.results.store import ResultWriter
from segmentd.workers import WorkerPool

# Not the image's fault: it waits until the cause is gone.
HOLD_REASONS = frozenset(
    {
        Reason.DISK_FULL,
        Reason.RESULTS_NOT_WRITABLE,
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_AMBIGUOUS,
        Reason.MODEL_UNUSABLE,
    }
)
HOLD_SECONDS = 5.0
# Smaller planes are read whole.
STREAM_ABOVE_BYTES = 128 << 20
MAX_ROW_BLOCK = 1024
TRIES = 3

_log = telemetry.get_logger(__name__)
Report = Callable[[PlaneIndex], None]


@dataclass(frozen=True)
class Engine:
    """What computes: models, a lane, and who may use it when."""

    registry: Registry
    lane: CpuLane
    scheduler: Scheduler


@dataclass(frozen=True)
class Target:
    """Where the results of an image go: folder, the input's path below its own folder, what to write."""

    folder: Path
    source: bytes
    outputs: Sequence[str]


def segment_image(
    image: OpenImage,
    lease: Lease,
    lane: CpuLane,
    options: SegmentOptions,
    target: Target,
    report: Report = lambda index: None,
) -> list[Segmentation]:
    """Segment all planes of an image and make its results durable; blocks.

    Returns
    -------
    list of Segmentation
        One for each plane, without watch, source, version and times of the input.

    Raises
    ------
    SegmentdError
        Whatever is wrong with the image, the model or the disk; nothing is left of the results then.
    """
    card, info = lease.card, image.info
    channels = used_channels(card, info.pixel_type, info.channel_names, image.name)
    records: list[Segmentation] = []
    digests = (image.content_digest, card.digest)
    with (
        ResultWriter(target.folder, target.source, target.outputs, info, card.classes, *digests) as writer,
        ThreadPoolExecutor(1, thread_name_prefix="write") as disk,
    ):
        # Reading the next plane, computing this one and writing the last one overlap.
        sources = one_ahead(lambda index: _plane_source(image, index), info.planes())
        pending: Future[None] | None = None
        for page, (index, source) in enumerate(zip(info.planes(), sources, strict=True)):
            tally = Tally(len(card.classes))
            for band in lane.segment(lease.path, source, options, channels):
                tally.add(band)
                if pending is not None:
                    pending.result()
                pending = disk.submit(_write, writer, index, band)
            records.append(_record_of(image, card, lane, page, index, tally))
            report(index)
        if pending is not None:
            pending.result()
        image.check_unchanged()
        with telemetry.stage("commit"):
            written = writer.commit()
    files = {kind: str(file.path) for kind, file in written.items()}
    hashes = {kind: file.sha256 for kind, file in written.items()}
    return [replace(record, files=files, digests=hashes) for record in records]


@dataclass(frozen=True)
class FileSource:
    """A plane that is read from its file by rows."""

    image: OpenImage
    index: PlaneIndex

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, Y, X)."""
        info = self.image.info
        return info.channel_count, info.height, info.width

    @property
    def band_rows(self) -> int:
        """Rows that are held at once."""
        return streamed_band_rows(self.image.info.width)

    def rows(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Decode rows start..stop-1 of all channels."""
        with telemetry.stage("read"):
            return self.image.read_rows(self.index, start, stop)


def _plane_source(image: OpenImage, index: PlaneIndex) -> PlaneSource:
    """The plane in memory, or read band by band where it is large and its file allows that."""
    info = image.info
    size = info.channel_count * info.height * info.width * np.dtype(info.pixel_type.value).itemsize
    if size > STREAM_ABOVE_BYTES and image.row_block <= MAX_ROW_BLOCK:
        return FileSource(image, index)
    with telemetry.stage("read"):
        return ArraySource(image.read_plane(index).pixels)


def _write(writer: ResultWriter, index: PlaneIndex, band: BandResult) -> None:
    with telemetry.stage("write"):
        writer.write_band(index, band.first_row, band.labels, band.confidence, band.pixels)


def _record_of(
    image: OpenImage, card: ModelCard, lane: CpuLane, page: int, index: PlaneIndex, tally: Tally
) -> Segmentation:
    return Segmentation(
        watch="",
        source=b"",
        source_path=b"",
        state=SegmentationState.SUCCEEDED,
        content_digest=image.content_digest,
        plane=index,
        page=page,
        plane_count=image.info.plane_count,
        height=image.info.height,
        width=image.info.width,
        model=card.id,
        model_digest=card.digest,
        classes=card.classes,
        label_pixel_counts=tally.label_pixel_counts,
        mean_confidence=tally.mean_confidence,
        masked_pixels=tally.masked_pixels,
        device=lane.name,
        device_reason=lane.reason,
        compute_seconds=tally.compute_seconds,
    )


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
    """

    def __init__(
        self,
        spec: WatchSpec,
        engine: Engine,
        pool: WorkerPool,
        journal: Journal,
        feed: Feed,
        hold: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._engine = engine
        self._pool = pool
        self._journal = journal
        self._feed = feed
        self._hold = hold

    async def process(self, found: FoundFile) -> None:
        """Bring one file to its end state: done, failed with a reason, or vanished.

        A file that changes under our hands is left to the next scan.

        Raises
        ------
        SegmentdError
            JOURNAL_NOT_WRITABLE: nothing more can be promised, the daemon has to end.
        """
        try:
            records = await self._segment_with_retries(found)
        except SegmentdError as error:
            if error.reason is Reason.IMAGE_CHANGED:
                return
            fault = Fault(error.reason, error.message, error.metadata)
        except Exception as error:
            _log.error("image failed", exc_info=error, file=found.path)
            name = type(error).__name__
            fault = Fault(
                Reason.INTERNAL, f"internal error ({name}); the daemon's log has the details, report it"
            )
        else:
            if records:
                await self._record(found, ImageState.DONE, records)
            return
        _log.warning("image failed", file=found.path, why=fault.message)
        if fault.reason == Reason.IMAGE_VANISHED:
            await self._record(found, ImageState.VANISHED, [], fault)
        else:
            await self._record(found, ImageState.FAILED, [await self._failure(found, fault)], fault)

    async def _segment_with_retries(self, found: FoundFile) -> list[Segmentation]:
        if found.fault is not None:
            raise SegmentdError(Reason(found.fault.reason), found.fault.message, **found.fault.metadata)
        tries = 0
        while True:
            try:
                async with self._engine.registry.lease(self._spec.model) as lease:
                    return await asyncio.to_thread(self._segment, found, lease)
            except SegmentdError as error:
                if error.reason in HOLD_REASONS:
                    await self._wait(error)
                    continue
                tries += 1
                if error.reason is not Reason.WORKER_CRASHED or tries == TRIES:
                    raise
                _log.warning("decoder crashed, trying again", file=found.path)

    async def _wait(self, error: SegmentdError) -> None:
        """Wait a little for the cause to go, and say why meanwhile."""
        _log.warning("watch waits", watch=self._spec.id, why=error.message)
        self._hold(error.message)
        await asyncio.sleep(HOLD_SECONDS)
        self._hold("")

    def _segment(self, found: FoundFile, lease: Lease) -> list[Segmentation]:
        """The blocking part; an empty list where this content has its results already."""
        spec = self._spec
        with open_image(self._pool, found.relative, folder=spec.folder, stamp=found.stamp) as image:
            digest = image.content_digest
            if self._journal.same_content(spec.id, found.relative, digest, found.stamp):
                return []
            version = self._journal.next_version(spec.id, found.relative, digest)
            target = Target(spec.results, found.relative, spec.outputs)
            records = segment_image(image, lease, self._engine.lane, spec.options, target)
        return [self._about(found, record, version) for record in records]

    async def _failure(self, found: FoundFile, fault: Fault) -> Segmentation:
        version = await asyncio.to_thread(self._journal.next_version, self._spec.id, found.relative, "")
        failed = Segmentation(
            watch="",
            source=b"",
            source_path=b"",
            state=SegmentationState.FAILED,
            fault=fault,
            model=reference_id(self._spec.model),
        )
        return self._about(found, failed, version)

    def _about(self, found: FoundFile, record: Segmentation, version: int) -> Segmentation:
        return replace(
            record,
            watch=self._spec.id,
            source=found.relative,
            source_path=found.path,
            version=version,
            source_time=found.stamp.mtime_ns / 1e9,
            create_time=time.time(),
            latency_seconds=max(0.0, time.monotonic() - found.complete_time_monotonic),
        )

    async def _record(
        self, found: FoundFile, state: ImageState, records: list[Segmentation], fault: Fault | None = None
    ) -> None:
        """Commit the image to the journal, then tell the subscribers."""
        outcome = ImageOutcome(
            watch=self._spec.id,
            path=found.relative,
            stamp=found.stamp,
            state=state,
            content_digest=records[0].content_digest if records else "",
            version=records[0].version if records else 1,
            fault=fault,
        )
        while True:
            try:
                await asyncio.to_thread(self._journal.record, outcome, records)
                break
            except SegmentdError as error:
                if error.reason is not Reason.DISK_FULL:
                    raise
                await self._wait(error)
        self._feed.notify()
