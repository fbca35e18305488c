"""The drift alarm of one watch: told images as they end, and reminded by the journal after a start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from segmentd import telemetry
from segmentd.records import DriftMeasure, ResultEvent, Segmentation
from segmentd.results.journal import Journal
from segmentd.watches.drift import HISTORY, Drift, describe, look_of

REMEMBERED_EVENTS = 2 * HISTORY

_log = telemetry.get_logger(__name__)


class DriftAlarm:
    """Says when the images of a watch look different; belongs to one event loop.

    Parameters
    ----------
    watch : str
        Id of the watch.
    journal : Journal
        Has the images of before.
    """

    def __init__(self, watch: str, journal: Journal) -> None:
        self._watch = watch
        self._journal = journal
        self._drift = Drift()
        self._remembered = False
        self.enabled = True

    @property
    def on(self) -> bool:
        """Whether the last images differ from those before."""
        return self.enabled and self._drift.alarm

    @property
    def measures(self) -> tuple[DriftMeasure, ...]:
        """What is measured; empty until there is enough to compare with."""
        return self._drift.measures if self.enabled else ()

    @property
    def warning(self) -> str:
        """What differs and what to do; empty while nothing does."""
        return describe(self.measures) if self.on else ""

    async def remember(self) -> None:
        """Look at the last images in the journal, once."""
        if self.enabled and not self._remembered:
            self._remembered = True
            self._drift = await asyncio.to_thread(self._replayed)

    def _replayed(self) -> Drift:
        """Where the last images in the journal lead to; blocks."""
        drift = Drift()
        for planes in _images(self._journal.page(REMEMBERED_EVENTS, watch=self._watch).events[::-1]):
            look = look_of(planes)
            if look is not None:
                drift.add(look)
        return drift

    def judge(self, records: list[Segmentation]) -> list[Segmentation]:
        """Take the next image; its last plane tells if the alarm begins or ends with it."""
        look = look_of(records) if self.enabled else None
        change = None if look is None else self._drift.add(look)
        if change is None:
            return records
        if change.alarm:
            _log.warning("images drift", watch=self._watch, why=describe(change.measures))
        else:
            _log.info("images drift no more", watch=self._watch, adopted=change.adopted)
        return [*records[:-1], replace(records[-1], drift=change)]


def _images(events: Sequence[ResultEvent]) -> list[list[Segmentation]]:
    """The planes of each image; the first one may have begun before."""
    planes = [event.segmentation for event in events]
    images = [list(group) for _, group in groupby(planes, lambda one: (one.source, one.version))]
    return [image for image in images if len(image) == image[0].plane_count]
