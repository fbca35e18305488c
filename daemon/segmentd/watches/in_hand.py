"""The images of a watch that are in work."""

from __future__ import annotations

import asyncio
import time

from segmentd import telemetry
from segmentd.ingest.folder import FoundFile
from segmentd.ingest.names import printable
from segmentd.records import FileStamp


class InHand:
    """Images in work by path, with the files that are part of them; belongs to one event loop."""

    def __init__(self) -> None:
        self._images: dict[bytes, tuple[FileStamp, asyncio.Task[None]]] = {}
        self._parts: dict[bytes, FileStamp] = {}

    def __len__(self) -> int:
        """Count the files."""
        return len(self._images) + len(self._parts)

    def stamp(self, path: bytes) -> FileStamp | None:
        """The stamp under which a path is in work; None where it is not."""
        found = self._images.get(path)
        return self._parts.get(path) if found is None else found[0]

    def add(self, found: FoundFile, task: asyncio.Task[None]) -> None:
        """Note an image, and the task that brings it to its end."""
        self._images[found.relative] = (found.stamp, task)
        self._parts |= {part.path: part.stamp for part in found.parts}

    def remove(self, found: FoundFile) -> None:
        """Note that an image has ended."""
        del self._images[found.relative]
        for part in found.parts:
            self._parts.pop(part.path, None)

    async def end_of(self, path: bytes) -> None:
        """Wait until a path is in work no more."""
        if path in self._images:
            await asyncio.wait([self._images[path][1]])

    async def finish(self) -> None:
        """Wait for all of them."""
        if self._images:
            await asyncio.wait([task for _, task in self._images.values()])

    def abandon(self) -> None:
        """Give all of them up."""
        for _, task in self._images.values():
            task.cancel()


def timeline_of(watch: str, found: FoundFile) -> telemetry.Timeline:
    """What is known of an image when its work begins: how long it settled, and waited for a slot."""
    complete, now = found.complete_time_monotonic, time.monotonic()
    stages = [("settle", found.changed_time_monotonic, complete), ("queue", complete, now)]
    return telemetry.Timeline("image", stages, {"watch": watch, "image": printable(found.relative)})
