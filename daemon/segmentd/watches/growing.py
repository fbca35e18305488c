"""Images that are still being written: their complete planes are segmented, shown, and kept for the end.

Nothing of this decides anything: when an image is complete, is decided as ever, and it is then segmented as
ever, except that planes whose pixels are those of a plane computed before are not computed again.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from itertools import islice

from segmentd import telemetry
from segmentd.engine.slot import Slot
from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.folder import FolderWatch
from segmentd.ingest.growing import PLANES_PER_LOOK, GrowingImage, Grown
from segmentd.ingest.scan import Sighting, sight
from segmentd.records import FileStamp, PlaneIndex, SegmentOptions, WatchSpec
from segmentd.results.early_planes import EarlyPlanes
from segmentd.results.previews import Show
from segmentd.segmentation import Early
from segmentd.threads import end_of, to_its_end
from segmentd.watches.early import compute, recalled
from segmentd.watches.hold import Hold
from segmentd.watches.parts import Parts

LOOK_SECONDS = 0.5
# Looking takes no more than a part of the time.
PAUSE_SHARE = 4.0
MAX_IMAGES = 8
MAX_SIGHTED = 64

Identity = tuple[int, int]
_log = telemetry.get_logger(__name__)


@dataclass(eq=False)
class _Image:
    """A growing image: what was computed of it, and whether that goes on."""

    path: bytes
    stamp: FileStamp
    planes: EarlyPlanes
    done: set[PlaneIndex] = field(default_factory=set)
    first: int = 0  # all planes before this position are done
    left: bool = False  # it grew since the last look, or that one found more than is done
    refused: bool = False
    handed_over: bool = False
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def goes_on(self) -> bool:
        """Whether more planes of it are wanted."""
        return not (self.refused or self.handed_over or self.planes.full or self.planes.closed)

    @property
    def takes_room(self) -> bool:
        """Whether there is anything to do or to keep."""
        return self.left or bool(self.done)


class Growing:
    """The growing images of one watch. Belongs to one event loop.

    Parameters
    ----------
    parts : Parts
        What the watch works with.
    hold : Hold
        Whether the watch waits: nothing is done early then.
    """

    def __init__(self, parts: Parts, hold: Hold) -> None:
        self._parts = parts
        self._hold = hold
        self._images: dict[Identity, _Image] = {}

    def early(self, stamp: FileStamp, options: SegmentOptions) -> Early | None:
        """What was computed of a complete image before; may be asked from any thread."""
        image = self._images.get(_identity(stamp))
        return None if image is None else recalled(image.planes, options)

    async def hand_over(self, stamp: FileStamp) -> None:
        """Do no more of an image, which has been decided on; returns when nothing of it is in work."""
        image = self._images.get(_identity(stamp))
        if image is not None:
            image.handed_over = True
            async with image.busy:
                pass

    def ended(self, stamp: FileStamp) -> None:
        """Forget an image that was handed over and has ended."""
        image = self._images.get(_identity(stamp))
        if image is not None and image.handed_over:
            self._drop(_identity(stamp))

    async def run(self, folder: FolderWatch, spec: WatchSpec, model: str) -> None:
        """Look after what grows in a folder, until cancelled; returns at once where that is not wanted."""
        if not spec.as_it_grows:
            return
        looker = _Looker(self._parts, spec, model)
        seen: set[bytes] = set()
        mine: dict[Identity, _Image] = {}
        pause = LOOK_SECONDS
        try:
            while True:
                await asyncio.sleep(pause)
                began = time.monotonic()
                try:
                    seen = await self._sight(folder, spec, seen, mine)
                except OSError as error:
                    _log.info("growing images cannot be looked at", watch=spec.id, why=str(error))
                    continue
                pause = max(LOOK_SECONDS, PAUSE_SHARE * (time.monotonic() - began))
                if self._hold.reason or self._parts.journal.short_of_room:
                    continue
                for image in [one for one in mine.values() if one.left and one.goes_on]:
                    took = await looker.advance(image)
                    pause = max(pause, PAUSE_SHARE * took)
        finally:
            for identity, image in mine.items():
                if not image.handed_over and self._images.get(identity) is image:
                    self._drop(identity)

    async def _sight(
        self,
        folder: FolderWatch,
        spec: WatchSpec,
        seen: set[bytes],
        mine: dict[Identity, _Image],
    ) -> set[bytes]:
        """Look which of the files that are not complete have changed; returns all that were seen."""
        paths = list(islice(folder.settle.paths(), MAX_SIGHTED))
        sightings = await asyncio.to_thread(sight, os.fsencode(spec.folder), paths)
        for sighting in sightings:
            if sighting.path in folder.settle:  # nobody else looks so often
                folder.settle.sighted(sighting.path, sighting.stamp, time.monotonic())
            if sighting.path in seen:  # most files are complete before they are seen twice
                self._note(sighting, spec, mine)
        paths_now = set(paths)
        for identity, image in list(mine.items()):
            if image.handed_over or self._images.get(identity) is not image:
                del mine[identity]
            elif image.path not in paths_now:
                del mine[identity]
                self._drop(identity)
        return {sighting.path for sighting in sightings}

    def _note(self, sighting: Sighting, spec: WatchSpec, mine: dict[Identity, _Image]) -> None:
        identity = _identity(sighting.stamp)
        image = self._images.get(identity)
        if image is not None and (image.handed_over or image.stamp == sighting.stamp):
            return  # where it was complete and grows again: one after the other
        if image is not None and sighting.stamp.size_bytes < image.stamp.size_bytes:
            self._drop(identity)
            image = None
        if image is None:
            if sum(one.takes_room for one in self._images.values()) >= MAX_IMAGES:
                return
            planes = self._parts.early.image(spec.results)
            image = self._images[identity] = _Image(sighting.path, sighting.stamp, planes)
        mine[identity] = image
        image.path, image.stamp, image.left = sighting.path, sighting.stamp, True

    def _drop(self, identity: Identity) -> None:
        self._images.pop(identity).planes.close()


def _identity(stamp: FileStamp) -> Identity:
    return stamp.device, stamp.inode


@dataclass(frozen=True)
class _Looker:
    """Computes planes of growing images, one after the other."""

    parts: Parts
    spec: WatchSpec
    model: str

    async def advance(self, image: _Image) -> float:
        """Segment some planes that became complete; returns how long it took to look for them."""
        try:
            return await self._advance(image)
        except OSError:
            image.refused = True  # it is gone, or what is there cannot be read: its end will tell
        except SegmentdError as error:
            if error.reason != Reason.IMAGE_INCOMPLETE:
                image.refused = True
                _log.info("waits until it is complete", file=image.path, why=error.message)
        except Exception as error:
            image.refused = True
            _log.error("planes of a growing image", exc_info=error, file=image.path)
        image.left = False
        return 0.0

    async def _advance(self, image: _Image) -> float:
        parts, spec = self.parts, self.spec
        opened = await to_its_end(GrowingImage, parts.pool, spec.folder, image.path)
        with opened:
            version = await to_its_end(parts.journal.next_version, spec.id, image.path, "")
            show = parts.feed.previews.of(
                spec.id, image.path, os.fsencode(spec.folder) + b"/" + image.path, version
            )
            began = time.monotonic()
            grown = await to_its_end(opened.look, image.first)
            took = time.monotonic() - began
            for position, index in grown.planes.items():
                if index not in image.done:
                    async with image.busy:
                        await self._plane(image, opened, grown, position, show)
                if not image.goes_on:
                    break
                image.done.add(index)
                image.first += position == image.first
            image.left = len(grown.planes) >= PLANES_PER_LOOK
        return took

    async def _plane(
        self, image: _Image, opened: GrowingImage, grown: Grown, position: int, show: Show
    ) -> None:
        parts, spec = self.parts, self.spec
        slot = Slot(parts.engine.scheduler, spec.id, spec.priority, self.model)
        await slot.acquire()
        try:
            if not image.goes_on:
                return
            async with parts.engine.registry.lease(self.model) as lease:
                lane, options = parts.engine.lane, spec.options
                work = asyncio.create_task(
                    to_its_end(compute, opened, grown, position, lease, lane, options, image.planes, show)
                )
                try:
                    await asyncio.shield(work)
                except asyncio.CancelledError:
                    if not image.handed_over:
                        image.planes.close()  # which ends it soon
                    await end_of(work)
                    raise
        finally:
            slot.release()
