from __future__ import annotations

from collections.abc import Iterator

import pytest

from segmentctl.errors import DaemonError
from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd_bench import arrivals
from segmentd_bench.arrivals import Arrival, Part
from segmentd_bench.errors import BenchmarkError


def head(name: str, cursor: str = "", error: str = "") -> Part:
    segmentation = pb.Segmentation(source_display=name)
    segmentation.error.message = error
    return Part(head=Part.Head(segmentation=segmentation), cursor=cursor)


def block(cursor: str = "") -> Part:
    part = Part(cursor=cursor)
    part.block.labels = b"\1"
    return part


def test_each_result_is_stamped_in_the_order_of_its_parts() -> None:
    parts = [
        Part(cursor="j-0"),
        head("a.tif"),
        block(),
        block(),
        block("j-1"),
        Part(cursor="j-1"),
        head("b.tif", "j-2"),
    ]
    first, second = arrivals.stamped(parts)
    assert (first.name, second.name) == ("a.tif", "b.tif")
    assert first.head <= first.first_block <= first.complete <= second.head
    assert second.head == second.first_block == second.complete


def test_a_result_is_complete_with_its_last_block_only() -> None:
    assert list(arrivals.stamped([head("a.tif"), block(), block()])) == []


@pytest.mark.parametrize("field", ["error", "blocks_error"])
def test_a_failure_ends_the_measurement(field: str) -> None:
    part = head("a.tif", "j-1", "too dark" if field == "error" else "")
    if field == "blocks_error":
        part.head.blocks_error.message = "too dark"
    with pytest.raises(BenchmarkError, match=r"a\.tif: too dark"):
        list(arrivals.stamped([part]))


def stream(*names: str, code: str = "DEADLINE_EXCEEDED") -> Iterator[Arrival]:
    for name in names:
        yield Arrival(pb.Segmentation(source_display=name), 1.0, 2.0, 3.0)
    raise DaemonError(code, "over", code=code)


def test_take_waits_for_all_and_passes_over_others() -> None:
    seen: list[str] = []
    found = arrivals.take(stream("warm-up", "b", "a", "c"), ["a", "b"], seen.append)
    assert list(found) == seen == ["b", "a"]


def test_take_says_how_many_came_in_time() -> None:
    with pytest.raises(BenchmarkError, match="only 1 of 2 images"):
        arrivals.take(stream("a"), ["a", "b"])


def test_take_does_not_hide_what_broke_the_stream() -> None:
    with pytest.raises(DaemonError, match="over"):
        arrivals.take(stream("a", code="UNAVAILABLE"), ["a", "b"])
