"""Subscriptions: the first heartbeat, cursors, and subscribers that do not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from segmentctl import DaemonError
from segmentd.v1 import segmentation_service_pb2 as pb

from .daemon import DaemonProcess, wait_until
from .images import write_blobs
from .scene import SOURCES, Scene
from .wire import connected, refusal

pytestmark = pytest.mark.e2e


def subscribe(scene: Scene, **fields: Any) -> Any:
    request = pb.SubscribeSegmentationsRequest(**{"parent": "watches/-"} | fields)
    return scene.wire.segmentations.SubscribeSegmentations(request, timeout=30)


def test_the_first_part_is_a_heartbeat_with_a_cursor(scene: Scene) -> None:
    for start, position in ((pb.SubscribeSegmentationsRequest.START_NEW, 5), (0, 5), (2, 0)):
        stream = subscribe(scene, start=start)
        first = next(stream)
        stream.cancel()
        assert first.WhichOneof("part") is None
        assert first.cursor == f"{scene.client.server().journal_id}-{position}"


def test_parts_come_in_order_and_only_the_last_one_of_a_segmentation_has_a_cursor(scene: Scene) -> None:
    stream = subscribe(scene, start="START_OLDEST")
    assert next(stream).WhichOneof("part") is None
    for expected in scene.in_order():
        part = next(stream)
        assert part.head.segmentation == expected.segmentation
        assert part.head.number == expected.number
        for _ in range(part.head.block_count):
            assert part.cursor == ""
            part = next(stream)
            assert part.WhichOneof("part") == "block"
        assert part.cursor == expected.cursor
    stream.cancel()


def test_a_cursor_goes_on_right_after_its_segmentation(scene: Scene) -> None:
    for result in scene.in_order()[:-1]:
        with scene.client.subscribe("hot", result.cursor, timeout=30, encoding="zstd") as stream:
            following = next(stream)
        assert following.number == result.number + 1
        expected = scene.in_order()[result.number]
        assert following.segmentation == expected.segmentation
        if expected.labels is not None:
            np.testing.assert_array_equal(following.labels, expected.labels)
            np.testing.assert_array_equal(following.confidence, expected.confidence)


def test_heads_only(scene: Scene) -> None:
    stream = subscribe(scene, start="START_OLDEST", metadata_only=True)
    parts = [next(stream) for _ in range(1 + len(SOURCES))]
    stream.cancel()
    assert [part.head.block_count for part in parts[1:]] == [0] * len(SOURCES)
    assert [part.cursor for part in parts[1:]] == [result.cursor for result in scene.in_order()]


def test_a_watch_hears_only_its_own(scene: Scene) -> None:
    stream = subscribe(scene, parent="watches/another", start="START_OLDEST")
    assert next(stream).cursor.endswith("-0")
    stream.cancel()
    assert list(scene.client.subscribe("another", start="oldest", timeout=0.5)) == []


@pytest.mark.parametrize("cursor", ["0123456789-1", "x", "{id}-6", "{id}-", "{id}--1", "{id}-1 ", "٣"])
def test_cursors_of_another_journal_are_refused(scene: Scene, cursor: str) -> None:
    cursor = cursor.format(id=scene.client.server().journal_id)
    refused = refusal(lambda: subscribe(scene, cursor=cursor))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CURSOR_UNKNOWN")
    with pytest.raises(DaemonError, match="Subscribe again without a cursor"):
        next(scene.client.subscribe("hot", cursor, timeout=30))


def test_subscribers_are_counted_while_they_are_there(scene: Scene) -> None:
    before = scene.client.server().subscriber_count
    stream = subscribe(scene)
    next(stream)
    assert scene.client.server().subscriber_count == before + 1
    stream.cancel()
    wait_until(lambda: scene.client.server().subscriber_count == before, "the subscriber is gone")


def test_a_subscriber_that_does_not_read_delays_nobody(place: Callable[..., DaemonProcess]) -> None:
    """It is sent far more than the buffers between it and the daemon hold; later it gets it all."""
    daemon, count = place(), 14
    with daemon.start(), daemon.client() as client, connected(daemon.address) as wire:
        request = pb.SubscribeSegmentationsRequest(parent="watches/hot", start="START_OLDEST")
        stalled = wire.segmentations.SubscribeSegmentations(request)
        next(stalled)
        with client.subscribe("hot", start="oldest", timeout=60) as results:
            for seed in range(count):
                write_blobs(daemon.hot / f"{seed}.tif", seed, (500, 600))
            assert [next(results).number for _ in range(count)] == list(range(1, count + 1))
        assert client.server().planes_in_flight == 0
        numbers = []
        while len(numbers) < count:
            part = next(stalled)
            if part.WhichOneof("part") == "head":
                numbers.append(part.head.number)
        stalled.cancel()
        assert numbers == list(range(1, count + 1))
