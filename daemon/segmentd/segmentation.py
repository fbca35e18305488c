"""One image: opened, checked against the model, segmented plane by plane, its results made durable."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from segmentd import crashpoints, telemetry
from segmentd.engine.ahead import one_ahead
from segmentd.engine.lanes import Lane
from segmentd.engine.scene_bands import filled_up
from segmentd.engine.segmenter import BandResult, Tally
from segmentd.engine.slot import Turn
from segmentd.engine.source import ArraySource, PlaneSource, Stack, StackPlane, streamed_band_rows
from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.frame import MAX_ROW_BLOCK
from segmentd.ingest.readers import OpenImage
from segmentd.models.fit import check_pixel_size, used_channels
from segmentd.models.registry import Lease
from segmentd.records import (
    FrameInfo,
    ModelCard,
    PlaneIndex,
    ResultForm,
    Segmentation,
    SegmentationState,
    SegmentOptions,
    WatchSpec,
)
from segmentd.results.previews import Show
from segmentd.results.recent import FreshPlane, RecentPlanes
from segmentd.results.store import ResultWriter

# Smaller planes are read whole.
STREAM_ABOVE_BYTES = 128 << 20
IMAGE_OUTPUTS = ("image",)

# Given a plane, the model, and the channels that it uses: what was computed of it before, if anything.
Early = Callable[[PlaneSource, ModelCard, slice], BandResult | None]
Report = Callable[[PlaneIndex], None]


@dataclass(frozen=True)
class Target:
    """Where the results of an image go: folder, the input's path below its own folder, what to write.

    `with_image` puts the image's channels in front of those of the classes, `form` is how files are written,
    `image` is where the image lies.
    """

    folder: Path
    source: bytes
    outputs: Sequence[str]
    with_image: bool = False
    form: ResultForm = field(default_factory=ResultForm)
    image: Path | None = None

    @classmethod
    def of(cls, spec: WatchSpec, relative: bytes) -> Self:
        """Say where the results of an image of a watch go."""
        path = spec.folder / os.fsdecode(relative)
        return cls(spec.results, relative, spec.outputs, spec.with_image, spec.form, path)


def segment_image(
    image: OpenImage,
    lease: Lease,
    lane: Lane,
    options: SegmentOptions,
    target: Target,
    report: Report = lambda index: None,
    recent: RecentPlanes | None = None,
    turn: Turn | None = None,
    show: Show | None = None,
    early: Early | None = None,
) -> list[Segmentation]:
    """Segment all planes of an image and make its results durable; blocks.

    Parameters
    ----------
    image, lease, lane, options, target
        What to segment, with which model, where, how, and where the results go.
    report : callable
        Told of each plane that was computed.
    recent : RecentPlanes, optional
        Keeps the last planes for those who want to see them at once.
    turn : Turn, optional
        Lets others go first between strips.
    show : callable, optional
        Given each plane of a stack that `recent` has room for, as soon as it is computed.
    early : callable, optional
        Tells what was computed of a plane while the image was being written.

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
    if turn is not None:
        turn.note_size(info.height * info.width)
    channels = used_channels(card, info.pixel_type, info.channel_names, image.name, info.rgb)
    check_pixel_size(card, info.pixel_size, options.pixel_size_tolerance, image.name)
    records: list[Segmentation] = []
    fresh: deque[FreshPlane] = deque()
    writer: ResultWriter | None = None
    # On an error the background ends before the writer throws away what it wrote.
    with ExitStack() as results, ThreadPoolExecutor(1, thread_name_prefix="results") as background:
        digest = background.submit(lambda: image.content_digest)
        # Reading the next plane, computing this one and writing the last one overlap.
        sources = (
            _stack_planes(image)
            if card.volume
            else one_ahead(lambda index: _plane_source(image, index), info.planes())
        )
        pending: Future[None] | None = None
        for page, (index, source) in enumerate(zip(info.planes(), sources, strict=True)):
            crashpoints.reach("decoded")
            began, tally = time.perf_counter(), Tally(len(card.classes))
            plane = FreshPlane(page, with_confidence="confidence" in target.outputs)
            keep = recent is not None and bool(card.classes) and recent.fits(info.height * info.width)
            known = None if early is None else early(source, card, channels)
            bands = lane.segment(lease.path, source, options, channels, digest=card.digest)
            for band in bands if known is None else [known]:
                tally.add(band)
                crashpoints.reach("computed")
                if writer is None:
                    writer = results.enter_context(_writer(target, image, card, digest.result(), band))
                for part in filled_up(band, info.scene_size(index.scene), (info.height, info.width)):
                    if keep:
                        plane.add(part.labels, part.confidence)
                    if pending is not None:
                        pending.result()
                    pending = background.submit(telemetry.in_context(_write), writer, index, part)
                scene_end = info.scene_size(index.scene)[0]
                last = page + 1 == info.plane_count and band.end_row == scene_end
                if turn is not None and not last:
                    turn.after(band)
            if known is None:
                telemetry.observe("compute", tally.compute_seconds)
                telemetry.note("compute", began)
            records.append(record_of(image.info, card, page, index, tally, image.content_digest))
            if recent is not None and keep:
                fresh.append(plane)
                recent.trim(fresh)
                if show is not None and info.plane_count > 1 and known is None:
                    show(records[-1], plane)
            report(index)
        if writer is None or pending is None:
            raise SegmentdError(Reason.IMAGE_CORRUPT, f"{image.name} has no planes; save it again")
        pending.result()
        image.check_unchanged()
        with telemetry.stage("commit"):
            written = writer.commit()
    files = {kind: str(file.path) for kind, file in written.items()}
    hashes = {kind: file.sha256 for kind, file in written.items()}
    if recent is not None and "labels" in hashes:
        recent.keep(files, hashes, fresh)
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
        return info.channel_count, *info.scene_size(self.index.scene)

    @property
    def band_rows(self) -> int:
        """Rows that are held at once."""
        return streamed_band_rows(self.shape[2])

    def rows(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Decode rows start..stop-1 of all channels."""
        with telemetry.stage("read"):
            return self.image.read_rows(self.index, start, stop)[:, :, : self.shape[2]]


def _plane_source(image: OpenImage, index: PlaneIndex) -> PlaneSource:
    """The plane in memory, or read band by band where it is large and its file allows that."""
    info = image.info
    height, width = info.scene_size(index.scene)
    size = info.channel_count * height * width * np.dtype(info.pixel_type.value).itemsize
    if size > STREAM_ABOVE_BYTES and image.row_block <= MAX_ROW_BLOCK:
        return FileSource(image, index)
    with telemetry.stage("read"):
        pixels = image.read_plane(index).pixels[:, :height, :width]
        return ArraySource(np.ascontiguousarray(pixels))


def _stack_planes(image: OpenImage) -> Iterator[PlaneSource]:
    """Planes that know their neighbours, each read when it is needed."""
    stack: Stack | None = None
    for index in image.info.planes():
        if stack is None or index.z == 0:
            stack = Stack(image.info.size_z, partial(_plane_of_stack, image, index))
        yield StackPlane(stack, index.z)


def _plane_of_stack(image: OpenImage, first: PlaneIndex, z: int) -> PlaneSource:
    return _plane_source(image, replace(first, z=z))


def _writer(
    target: Target, image: OpenImage, card: ModelCard, content_digest: str, first: BandResult
) -> ResultWriter:
    # A network that makes images has neither labels nor confidence to write.
    outputs = target.outputs if first.image is None else IMAGE_OUTPUTS
    return ResultWriter(
        target.folder,
        target.source,
        outputs,
        image.info,
        card.classes,
        content_digest,
        card.digest,
        image_channels=1 if first.image is None else len(first.image),
        with_image=target.with_image,
        form=target.form,
        image=target.image,
        workers=image.workers,
        image_folder=image.folder,
    )


def _write(writer: ResultWriter, index: PlaneIndex, band: BandResult) -> None:
    with telemetry.stage("write"):
        writer.write_band(index, band.first_row, band.labels, band.confidence, band.pixels, band.image)


def record_of(
    info: FrameInfo, card: ModelCard, page: int, index: PlaneIndex, tally: Tally, content_digest: str = ""
) -> Segmentation:
    """What is told of a plane that was computed; the names of the image and its files are still missing."""
    return Segmentation(
        watch="",
        source=b"",
        source_path=b"",
        state=SegmentationState.SUCCEEDED,
        content_digest=content_digest,
        plane=index,
        page=page,
        plane_count=info.plane_count,
        height=info.height,
        width=info.width,
        model=card.id,
        model_digest=card.digest,
        classes=card.classes,
        label_pixel_counts=tally.label_pixel_counts,
        mean_confidence=tally.mean_confidence,
        masked_pixels=tally.masked_pixels,
        device=tally.device,
        device_reason=tally.device_reason,
        compute_seconds=tally.compute_seconds,
    )
