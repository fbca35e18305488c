from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from segmentctl import Client, DaemonError, Result, StreamError
from segmentctl.subscription import collect
from segmentd.v1 import pixels_pb2
from segmentd.v1 import segmentation_service_pb2 as pb

Part = pb.SubscribeSegmentationsResponse
PARTS_OF_ONE = 4  # a head and three blocks


def take(subscription: Any, count: int) -> list[Result]:
    return [next(subscription) for _ in range(count)]


def assert_complete(daemon: Any, results: list[Result], numbers: list[int]) -> None:
    assert [result.number for result in results] == numbers
    for result in results:
        labels, confidence = daemon.pixels(result.number)
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.confidence, confidence)
        assert result.segmentation.name.endswith(f"s{result.number}")


def test_results_come_in_order_with_pixels_and_cursors(daemon: Any) -> None:
    for _ in range(3):
        daemon.publish()
    with Client(daemon.address) as client, client.subscribe(start="oldest") as results:
        got = take(results, 3)
        assert_complete(daemon, got, [1, 2, 3])
        assert [result.cursor for result in got] == ["j-1", "j-2", "j-3"]
        assert results.cursor == "j-3"
        assert all(result.error is None for result in got)


# The first stream breaks after any number of parts: at the start, between two segmentations, after a
# head, between blocks. The client must have seen the first heartbeat, else it had nothing to go on with.
@pytest.mark.parametrize("cut", range(1, 3 * PARTS_OF_ONE + 1))
@pytest.mark.parametrize("cut_with", ["abort", "end"])
def test_a_broken_stream_is_resumed_without_gap_or_repeat(daemon: Any, cut: int, cut_with: str) -> None:
    for _ in range(3):
        daemon.publish()
    daemon.cuts, daemon.cut_with = [cut], cut_with
    told: list[str] = []
    with (
        Client(daemon.address) as client,
        client.subscribe(
            start="oldest", on_interruption=lambda error, _: told.append(error.reason)
        ) as results,
    ):
        assert_complete(daemon, take(results, 3), [1, 2, 3])
        daemon.publish()
        assert_complete(daemon, take(results, 1), [4])
    assert told == ["SHUTTING_DOWN" if cut_with == "abort" else "STREAM_ENDED"]
    done = (cut - 1) // PARTS_OF_ONE
    assert [request.cursor for request in daemon.requests] == ["", f"j-{done}"]


def test_many_breaks_in_a_row(daemon: Any) -> None:
    for _ in range(5):
        daemon.publish()
    daemon.cuts = [3, 2, 6, 4, 1]
    with Client(daemon.address) as client:
        assert_complete(daemon, take(client.subscribe(start="oldest"), 5), [1, 2, 3, 4, 5])
    assert len(daemon.requests) == 6


def test_a_restart_of_the_daemon_is_bridged(daemon: Any) -> None:
    daemon.publish()
    interruptions: list[DaemonError] = []
    down = threading.Event()

    def on_interruption(error: DaemonError, _: float) -> None:
        interruptions.append(error)
        if error.reason == "DAEMON_UNREACHABLE":
            down.set()

    def restart() -> None:
        daemon.stop()
        assert down.wait(20)
        daemon.publish()
        daemon.start()

    with Client(daemon.address) as client:
        results = client.subscribe(start="oldest", on_interruption=on_interruption)
        assert_complete(daemon, take(results, 1), [1])
        restarter = threading.Thread(target=restart)
        restarter.start()
        assert_complete(daemon, take(results, 1), [2])
        restarter.join()
    assert interruptions[-1].reason == "DAEMON_UNREACHABLE"


def test_start_new_does_not_lose_what_comes_while_it_is_away(daemon: Any) -> None:
    daemon.publish()
    daemon.cuts = [1]  # only the first heartbeat comes
    away = threading.Event()

    def on_interruption(_: DaemonError, __: float) -> None:
        daemon.publish()
        away.set()

    with Client(daemon.address) as client:
        results = client.subscribe(start="new", on_interruption=on_interruption)
        assert_complete(daemon, take(results, 1), [2])
    assert away.is_set()


def test_a_cursor_goes_on_after_it_also_in_another_client(daemon: Any) -> None:
    for _ in range(3):
        daemon.publish()
    with Client(daemon.address) as client:
        cursor = take(client.subscribe(start="oldest"), 2)[1].cursor
    with Client(daemon.address) as client:
        assert_complete(daemon, take(client.subscribe(cursor=cursor), 1), [3])


def test_heartbeats_move_the_cursor_past_other_watches(daemon: Any) -> None:
    daemon.publish(watch="other")
    daemon.publish(watch="plate")
    daemon.cuts = [2]  # the first heartbeat, and the one in place of the other watch's segmentation
    with Client(daemon.address) as client:
        results = client.subscribe("plate", start="oldest")
        assert_complete(daemon, take(results, 1), [2])
    assert [request.cursor for request in daemon.requests] == ["", "j-1"]


def test_silence_makes_it_connect_again(daemon: Any) -> None:
    daemon.silent = True
    daemon.publish()

    def on_interruption(_: DaemonError, __: float) -> None:
        daemon.silent = False

    with Client(daemon.address) as client:
        results = client.subscribe(start="oldest", idle_seconds=1.0, on_interruption=on_interruption)
        assert_complete(daemon, take(results, 1), [1])
    assert len(daemon.requests) >= 2


def test_timeout_ends_the_iteration(daemon: Any) -> None:
    daemon.publish()
    with Client(daemon.address) as client:
        results = client.subscribe(start="oldest", timeout=0.5)
        assert [result.number for result in results] in ([1], [])  # a slow machine may not get that far
        assert list(results) == []


def test_timeout_also_ends_waiting_for_a_daemon_that_is_gone(daemon: Any) -> None:
    daemon.publish()
    daemon.cuts = [1 + PARTS_OF_ONE]
    stop_once = iter([daemon.stop])
    with Client(daemon.address) as client:
        results = client.subscribe(
            start="oldest", timeout=1.5, on_interruption=lambda *_: next(stop_once, lambda: None)()
        )
        assert [result.number for result in results] in ([1], [])


def test_close_from_another_thread_ends_the_iteration(daemon: Any) -> None:
    with Client(daemon.address) as client:
        results = client.subscribe()
        threading.Timer(0.2, results.close).start()
        assert list(results) == []


def test_closing_the_client_ends_its_subscriptions(daemon: Any) -> None:
    client = Client(daemon.address)
    results = client.subscribe()
    threading.Timer(0.2, client.close).start()
    assert list(results) == []


@pytest.mark.parametrize(
    ("cursor", "reason", "metadata"),
    [("j--1", "CURSOR_EXPIRED", {"oldest_cursor": "j-0"}), ("k-1", "CURSOR_UNKNOWN", {})],
)
def test_a_useless_cursor_is_told_at_once(
    daemon: Any, cursor: str, reason: str, metadata: dict[str, str]
) -> None:
    with Client(daemon.address) as client, pytest.raises(DaemonError) as caught:
        next(client.subscribe(cursor=cursor))
    assert caught.value.reason == reason
    assert caught.value.metadata == metadata
    assert len(daemon.requests) == 1


def test_a_failed_segmentation_has_its_reason_and_no_pixels(daemon: Any) -> None:
    error = pb.Segmentation(state=pb.Segmentation.STATE_FAILED).error
    error.code, error.message = 3, "b.tif ends too early"
    daemon.publish(state=pb.Segmentation.STATE_FAILED, error=error)
    with Client(daemon.address) as client:
        result = take(client.subscribe(start="oldest"), 1)[0]
    assert result.labels is None and result.confidence is None
    assert result.error is not None
    assert result.error.message == "b.tif ends too early"


def test_metadata_only_brings_no_pixels(daemon: Any) -> None:
    daemon.publish()
    with Client(daemon.address) as client:
        result = take(client.subscribe(start="oldest", metadata_only=True, encoding="zstd"), 1)[0]
    assert result.labels is None and result.error is None
    assert daemon.requests[0].metadata_only
    assert daemon.requests[0].encoding == pixels_pb2.ENCODING_ZSTD


# ---------------------------------------------------------------- the order of parts


def head(count: int, number: int = 1, cursor: str = "") -> Part:
    segmentation = pb.Segmentation(height=6, width=5)
    return Part(head=Part.Head(segmentation=segmentation, number=number, block_count=count), cursor=cursor)


def test_a_head_that_comes_again_replaces_half_a_segmentation(daemon: Any) -> None:
    again = head(0, cursor="j-1")
    again.head.blocks_error.message = "the file is gone"
    first, *_ = daemon.blocks(1)
    (result,) = collect(iter([head(3), Part(block=first), again]))
    assert isinstance(result, Result)
    assert result.cursor == "j-1" and result.labels is None
    assert result.error is not None and result.error.message == "the file is gone"


def test_half_a_segmentation_at_the_end_is_dropped(daemon: Any) -> None:
    blocks = daemon.blocks(1)
    parts = [Part(cursor="j-0"), head(3), *(Part(block=block) for block in blocks[:2])]
    assert list(collect(iter(parts))) == ["j-0"]


def test_previews_have_no_cursor_and_move_nothing(daemon: Any) -> None:
    blocks = daemon.blocks(1)
    shown = head(3, number=0)
    shown.head.preview = True
    parts = [Part(cursor="j-0"), shown, *(Part(block=block) for block in blocks)]
    _, preview = collect(iter(parts))
    assert isinstance(preview, Result)
    assert (preview.preview, preview.number, preview.cursor) == (True, 0, "")
    np.testing.assert_array_equal(preview.labels, daemon.pixels(1)[0])
    shown.head.block_count, shown.cursor = 0, "j-1"
    with pytest.raises(StreamError, match="a preview ended with a cursor"):
        list(collect(iter([shown])))


def test_parts_in_a_wrong_order_are_refused(daemon: Any) -> None:
    first, second, third = (Part(block=block) for block in daemon.blocks(1))
    early = Part(block=second.block, cursor="j-1")
    cases = {
        "without the head": [first],
        "without a cursor": [head(0)],
        "fewer blocks": [head(3), first, head(0, number=2, cursor="j-2")],
        "fewer blocks ": [head(3), first, early, third],
        "heartbeat came without": [Part()],
        "left out": [head(2), first, early],
        "again": [head(3), first, first, third],
    }
    for message, parts in cases.items():
        with pytest.raises(StreamError, match=message.strip()):
            list(collect(iter(parts)))
