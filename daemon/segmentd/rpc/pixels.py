"""Pixels of published segmentations, read from the result files; the last few planes stay in memory."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import read_region
from segmentd.records import FileStamp, Region, Segmentation, SegmentationState
from segmentd.results.contents import digest_of, stamp_of
from segmentd.results.recent import Planes, RecentPlanes
from segmentd.rpc.blocks import Piece, split

# A plane up to this size is decoded once for all who want it; of larger ones only what is asked for.
WHOLE_PLANE_PIXELS = 1 << 24
CACHE_BYTES = 64 << 20
KEPT_DIGESTS = 1000

Bytes = npt.NDArray[np.uint8]
Key = tuple[str, str, int]


class PixelReader:
    """Reads labels and confidence block by block; belongs to one event loop.

    Planes that were published last come from memory, `recent`.
    """

    def __init__(self, recent: RecentPlanes) -> None:
        self._recent = recent
        self._kept: OrderedDict[Key, asyncio.Future[Planes]] = OrderedDict()
        self._digests: dict[tuple[str, FileStamp], str] = {}

    async def pieces(self, record: Segmentation, region: Region) -> AsyncIterator[Piece]:
        """What goes into the blocks of a region.

        Raises
        ------
        SegmentdError
            RESULT_UNAVAILABLE where the segmentation failed, or its files are gone or hold no labels.
        """
        _check_readable(record)
        planes = await asyncio.to_thread(self._recent.get, record.files, record.digests, record.page)
        if planes is None:
            await asyncio.to_thread(self._check_files, record)
            if record.height * record.width <= WHOLE_PLANE_PIXELS:
                planes = await self._plane(record)
        if planes is not None:
            for piece in cut(planes, region):
                yield piece
            return
        for part in split(region):
            yield Piece(part, *await asyncio.to_thread(_read, record, part))

    def _check_files(self, record: Segmentation) -> None:
        """Check that the files are still those of this segmentation: a newer version takes their names."""
        for kind in ("labels", "confidence"):
            if kind in record.files and self._digest_of(record.files[kind]) != record.digests.get(kind):
                raise SegmentdError(
                    Reason.RESULT_UNAVAILABLE,
                    f"the {kind} of version {record.version} are gone: the image was segmented again, see "
                    "its later segmentation; or the file was damaged, restore it or have the image made anew",
                    kind=kind,
                )

    def _digest_of(self, path: str) -> str:
        """SHA-256 of a file, taken once for each state of it."""
        try:
            name = os.fsencode(path)
            state = (path, stamp_of(name))
            found = self._digests.get(state)
            if found is None:
                found = self._digests[state] = digest_of(name)
        except OSError as error:
            raise SegmentdError(
                Reason.RESULT_UNAVAILABLE,
                f"the result file {path} cannot be read: {error.strerror}; it was moved or deleted",
            ) from error
        while len(self._digests) > KEPT_DIGESTS:
            self._digests.pop(next(iter(self._digests)), None)
        return found

    async def _plane(self, record: Segmentation) -> Planes:
        """The whole plane, decoded once however many ask for it at the same time."""
        key = (record.files["labels"], record.digests.get("labels", ""), record.page)
        found = self._kept.get(key)
        if found is None:
            found = asyncio.ensure_future(asyncio.to_thread(self._read_whole, record))
            self._kept[key] = found
            # Not kept: files that could not be read may come back.
            found.add_done_callback(lambda done: self._settle(key, done))
        self._kept.move_to_end(key)
        return await asyncio.shield(found)

    def _read_whole(self, record: Segmentation) -> Planes:
        planes = _read(record, Region(0, 0, record.height, record.width))
        self._check_files(record)  # still the same, so what was read is too
        return planes

    def _settle(self, key: Key, done: asyncio.Future[Planes]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._kept.pop(key, None)
            return
        total = 0
        for kept in reversed(list(self._kept)):
            future = self._kept[kept]
            if future.done() and not future.cancelled() and future.exception() is None:
                total += sum(plane.nbytes for plane in future.result() if plane is not None)
                if total > CACHE_BYTES:
                    del self._kept[kept]


def _check_readable(record: Segmentation) -> None:
    if record.state is not SegmentationState.SUCCEEDED:
        message = record.fault.message if record.fault else "it failed"
        if record.state is SegmentationState.RENAMED:
            message = "it tells that an image was renamed; read the segmentation from before, or the files"
        raise SegmentdError(Reason.RESULT_UNAVAILABLE, f"the segmentation has no pixels: {message}")
    if "image" in record.files:
        raise SegmentdError(
            Reason.RESULT_UNAVAILABLE,
            "the model makes images, which are not sent; read the file that the segmentation names",
        )
    if "labels" not in record.files:
        raise SegmentdError(
            Reason.RESULT_UNAVAILABLE,
            'the watch does not write labels; add "labels" to its outputs to read them',
        )


def _read(record: Segmentation, region: Region) -> Planes:
    labels = read_region(Path(record.files["labels"]), record.page, region).astype(np.uint8, copy=False)
    if "confidence" not in record.files:
        return labels, None
    confidence = read_region(Path(record.files["confidence"]), record.page, region)
    return labels, confidence.astype(np.uint8, copy=False)


def cut(planes: Planes, region: Region) -> list[Piece]:
    """What goes into the blocks of a region of a plane in memory."""
    labels, confidence = planes
    return [
        Piece(part, _window(labels, part), None if confidence is None else _window(confidence, part))
        for part in split(region)
    ]


def _window(plane: Bytes, part: Region) -> Bytes:
    return plane[part.y : part.y + part.height, part.x : part.x + part.width]
