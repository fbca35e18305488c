from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segmentd.records import FileStamp, ResultEvent, Segmentation, SegmentationState
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal

Publish = Callable[..., list[ResultEvent]]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "journal")
    yield journal
    journal.close()


@pytest.fixture
def publish(journal: Journal) -> Publish:
    """Record images as done: `publish(3, watch="w")` makes three events, named by a running number."""
    numbers = iter(range(10**9))

    def publish(count: int = 1, watch: str = "w") -> list[ResultEvent]:
        images = []
        for _ in range(count):
            source = b"%d.tif" % next(numbers)
            outcome = ImageOutcome(watch, source, FileStamp(1, 2, 3, 4), ImageState.DONE, "ab")
            segmentation = Segmentation(watch, source, b"/in/" + source, SegmentationState.SUCCEEDED)
            images.append((outcome, [segmentation]))
        return [event for events in journal.record_many(images) for event in events]

    return publish
