"""What becomes of files that are there when a watch is new."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from segmentd.ingest.folder import Ignore
from segmentd.ingest.scan import Sighting
from segmentd.records import Segmentation, WatchSpec
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal


async def first_look(spec: WatchSpec, journal: Journal) -> Ignore | None:
    """What to do with the files that the first look finds, None for nothing; decided once and for all."""
    if not await asyncio.to_thread(journal.is_new, spec.id):
        return None
    if spec.existing != "ignore":
        await asyncio.to_thread(journal.finish_first_look, spec.id)
        return None

    async def ignore(files: Sequence[Sighting]) -> None:
        """Take note of a portion of the files; an empty one is the end."""
        ignored: list[tuple[ImageOutcome, Sequence[Segmentation]]] = [
            (ImageOutcome(spec.id, file.path, file.stamp, ImageState.IGNORED), ())
            for file in files
            if not journal.known(spec.id, file.path, file.stamp)
        ]
        await asyncio.to_thread(journal.record_many, ignored)
        if not files:
            await asyncio.to_thread(journal.finish_first_look, spec.id)

    return ignore
