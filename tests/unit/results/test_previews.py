from __future__ import annotations

from contextlib import aclosing
from typing import Any

import numpy as np

from segmentd.records import PlaneIndex, ResultEvent, Segmentation, SegmentationState
from segmentd.results.feed import Feed, Heartbeat
from segmentd.results.journal import Journal
from segmentd.results.previews import Preview, Previews
from segmentd.results.recent import FreshPlane


def preview(z: int, watch: str = "w", source: bytes = b"a.tif", edge: int = 4) -> Preview:
    record = Segmentation(watch, source, b"", SegmentationState.SUCCEEDED, plane=PlaneIndex(z=z))
    return Preview(record, (np.zeros((edge, edge), np.uint8), None))


def planes(found: list[Preview]) -> list[int]:
    return [one.segmentation.plane.z for one in found]


def test_onlookers_see_each_plane_once_from_when_they_came() -> None:
    previews = Previews(lambda: None)
    previews.show(preview(0))
    with previews.onlooker() as first:
        previews.show(preview(1))
        with previews.onlooker("w") as second:
            previews.show(preview(2))
            previews.show(preview(3, watch="v"))
            assert planes(first()) == [1, 2, 3]
            assert planes(second()) == [2]
            assert planes(first()) == planes(second()) == []
        assert previews.wanted
    assert not previews.wanted


def test_who_is_behind_misses_the_oldest() -> None:
    previews = Previews(lambda: None, limit_bytes=100, limit_planes=3)
    with previews.onlooker() as news:
        for z in range(5):
            previews.show(preview(z))
        assert planes(news()) == [2, 3, 4]
        previews.show(preview(5, edge=9))
        previews.show(preview(6, edge=11))  # more than the limit alone
        assert planes(news()) == [5]


def test_planes_of_an_image_that_ended_are_dropped() -> None:
    previews = Previews(lambda: None)
    with previews.onlooker() as news:
        for source, watch in ((b"a.tif", "w"), (b"b.tif", "w"), (b"a.tif", "v")):
            previews.show(preview(0, watch, source))
        previews.drop("w", b"a.tif")
        assert [(one.segmentation.watch, one.segmentation.source) for one in news()] == [
            ("w", b"b.tif"),
            ("v", b"a.tif"),
        ]


def test_what_is_shown_of_an_image_has_its_names_and_no_digest() -> None:
    woken: list[int] = []
    previews = Previews(lambda: woken.append(1))
    plane = FreshPlane(2)
    plane.add(np.ones((2, 3), np.uint8), np.full((2, 3), 7, np.uint8))
    record = Segmentation("", b"", b"", SegmentationState.SUCCEEDED, content_digest="ab", page=2)
    show = previews.of("w", b"a.tif", b"/in/a.tif", 4)
    show(record, plane)
    assert woken == []
    with previews.onlooker() as news:
        show(record, plane)
        (shown,) = news()
    assert woken == [1]
    told = shown.segmentation
    assert (told.watch, told.source, told.source_path) == ("w", b"a.tif", b"/in/a.tif")
    assert (told.version, told.content_digest, told.page) == (4, "", 2)
    labels, confidence = shown.planes
    assert labels.all()
    assert confidence is not None and (confidence == 7).all()


async def test_subscribers_who_ask_get_previews_and_then_the_events(journal: Journal, publish: Any) -> None:
    feed = Feed(journal)
    asking, other = (feed.subscribe(heartbeat_seconds=1e6, previews=wanted) for wanted in (True, False))
    async with aclosing(asking) as items, aclosing(other) as plain:
        assert isinstance(await anext(items), Heartbeat)
        assert isinstance(await anext(plain), Heartbeat)
        coming = anext(items)
        publish()
        feed.notify()
        assert isinstance(await coming, ResultEvent)
        shown = preview(0)
        feed.previews.show(shown)
        publish()
        feed.notify()
        assert await anext(items) is shown
        numbers = [(await anext(items)).number]  # type: ignore[union-attr]
        numbers += [(await anext(plain)).number for _ in range(2)]  # type: ignore[union-attr]
    assert numbers == [2, 1, 2]
    assert not feed.previews.wanted
