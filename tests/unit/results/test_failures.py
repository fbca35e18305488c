"""What `segmentctl status` asks the journal: the last failures, and its size."""

from __future__ import annotations

from segmentd.records import Fault, FileStamp, Segmentation, SegmentationState
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal

from .conftest import Publish


def fail(journal: Journal, name: bytes) -> None:
    fault = Fault("IMAGE_CORRUPT", "it is damaged")
    failed = Segmentation("w", name, b"/in/" + name, SegmentationState.FAILED, fault=fault)
    journal.record(ImageOutcome("w", name, FileStamp(1, 2, 3, 4), ImageState.FAILED, fault=fault), [failed])


def test_the_last_failures_come_first(journal: Journal, publish: Publish) -> None:
    assert journal.failures(5) == []
    for name in (b"a", b"b", b"c"):
        fail(journal, name)
        publish(2)
    assert [event.segmentation.source for event in journal.failures(2)] == [b"c", b"b"]
    assert [event.number for event in journal.failures(9)] == [7, 4, 1]


def test_failures_are_found_by_their_index(journal: Journal) -> None:
    from segmentd.results.events import _FAILURES

    plan = journal.write(lambda writer: writer.execute(f"EXPLAIN QUERY PLAN {_FAILURES}", (5,)).fetchall())
    assert any("failed_events" in str(row) for row in plan)


def test_the_size_is_that_of_the_files(journal: Journal, publish: Publish) -> None:
    before = journal.size_bytes()
    assert before > 4096
    publish(200)
    assert journal.size_bytes() > before
