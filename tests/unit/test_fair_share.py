"""Large images give way to others between strips: counted in strips, never in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentd.engine.lane import CpuLane
from segmentd.engine.scheduler import Scheduler
from segmentd.engine.segmenter import BandResult
from segmentd.engine.slot import Slot, Turn
from segmentd.errors import Reason, SegmentdError
from segmentd.models.registry import Registry
from segmentd.pipeline import Engine, Pipeline
from segmentd.records import PixelType, SegmentationState, SegmentOptions, WatchSpec
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.rpc import segment_plane
from segmentd.rpc.plane_call import PlaneCalls
from segmentd.v1 import pixels_pb2
from segmentd.v1 import segmentation_service_pb2 as pb
from segmentd.workers import WorkerPool

from . import tiny_model
from .pipeline_bench import PIXELS, found_file, write_image

STRIPS = 6
LARGE = np.tile(PIXELS, (256 * STRIPS // 30 + 1, 1))[: 256 * STRIPS]


class Place:
    """Two watches with one slot between them, and a list of the strips that were computed."""

    def __init__(self, folder: Path, pool: WorkerPool, lane: CpuLane) -> None:
        tiny_model.save(folder / "models" / "cells.segmodel")
        self.folder, self.pool = folder, pool
        self.journal = Journal.open(folder / "journal")
        registry = Registry(folder / "models", lane.load, lane.unload)
        self.engine = Engine(registry, lane, Scheduler(1))
        self.strips: list[int] = []

    async def process(self, watch: str, name: str, pixels: Any) -> None:
        """Take a file of a watch to its end, as the watch does."""
        folder = self.folder / watch
        folder.mkdir(exist_ok=True)
        write_image(folder / name, pixels)
        spec = WatchSpec(watch, folder, "cells", folder / "results", options=SegmentOptions(tile_px=256))
        feed = Feed(self.journal)
        pipeline = Pipeline(spec, self.engine, self.pool, self.journal, feed, lambda why: None)
        slot = Slot(self.engine.scheduler, watch, 0, "cells")
        await slot.acquire()
        try:
            await pipeline.process(found_file(folder / name), slot, "cells")
        finally:
            slot.release()


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as started:
        yield started


@pytest.fixture
def place(tmp_path: Path, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    lane = CpuLane(1)
    made = Place(tmp_path, pool, lane)
    segment = CpuLane.segment

    def counted(*args: Any, **options: Any) -> Iterator[BandResult]:
        for strip in segment(*args, **options):
            made.strips.append(len(strip.labels))
            yield strip

    monkeypatch.setattr(CpuLane, "segment", counted)
    yield made
    made.journal.close()
    lane.close()


async def waiting(scheduler: Scheduler, number: int) -> None:
    while scheduler.waiting < number:  # noqa: ASYNC110 (it tells nobody)
        await asyncio.sleep(0.001)


async def test_small_images_elsewhere_go_between_the_strips_of_a_large_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Turn, "quantum_pixels", 2 * 256 * LARGE.shape[1])
    scheduler = place.engine.scheduler
    await scheduler.acquire("gate")
    tasks = [asyncio.create_task(place.process("large", "large.tif", LARGE))]
    await waiting(scheduler, 1)
    tasks += [asyncio.create_task(place.process("small", f"{i}.tif", PIXELS)) for i in range(2)]
    await waiting(scheduler, 3)
    scheduler.release()
    await asyncio.gather(*tasks)
    small, strip = len(PIXELS), 256
    assert place.strips == [strip, strip, small, strip, strip, small, strip, strip]
    events = place.journal.events(0, 10)
    assert [event.segmentation.source for event in events] == [b"0.tif", b"1.tif", b"large.tif"]
    assert all(event.segmentation.state is SegmentationState.SUCCEEDED for event in events)
    assert (scheduler.in_flight, scheduler.waiting, scheduler.paused) == (0, 0, 0)


async def test_nobody_gives_way_where_nobody_waits_or_before_the_quantum(place: Place) -> None:
    scheduler = place.engine.scheduler
    await scheduler.acquire("gate")
    tasks = [asyncio.create_task(place.process("large", "large.tif", LARGE))]
    await waiting(scheduler, 1)
    tasks.append(asyncio.create_task(place.process("small", "0.tif", PIXELS)))
    await waiting(scheduler, 2)
    scheduler.release()
    await asyncio.gather(*tasks)
    assert place.strips == [256] * STRIPS + [len(PIXELS)]


# ---------------------------------------------------------------- planes of callers


async def requests(pixels: Any, **fields: Any) -> Any:
    head = pb.SegmentPlaneRequest.Head(
        model="models/cells",
        pixel_type=pixels_pb2.PIXEL_TYPE_UINT8,
        channel_count=1,
        height=pixels.shape[0],
        width=pixels.shape[1],
        tile_pixels=256,
        **fields,
    )
    yield pb.SegmentPlaneRequest(head=head)
    yield pb.SegmentPlaneRequest(pixels=pixels.astype(PixelType.UINT8.value).tobytes())


async def answers(calls: PlaneCalls, client: str, pixels: Any, **fields: Any) -> list[Any]:
    return [answer async for answer in segment_plane.run(calls, requests(pixels, **fields), client)]


async def test_clients_take_turns_and_priorities_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turn, "quantum_pixels", 1)
    calls, scheduler = PlaneCalls(place.engine), place.engine.scheduler
    await scheduler.acquire("gate")
    tasks = []
    for number, (client, rows, priority) in enumerate(
        [("client a", 1024, 0), ("client a", 40, 0), ("client b", 50, 0), ("client c", 60, 7)], 1
    ):
        plane = np.resize(LARGE, (rows, 40))
        tasks.append(asyncio.create_task(answers(calls, client, plane, priority=priority)))
        await waiting(scheduler, number)
    scheduler.release()
    await asyncio.gather(*tasks)
    assert place.strips == [60, 256, 50, 256, 256, 256, 40]


async def test_a_plane_that_waits_too_long_is_refused_and_leaves_the_queue(place: Place) -> None:
    calls, scheduler = PlaneCalls(place.engine), place.engine.scheduler
    await scheduler.acquire("gate")
    with pytest.raises(SegmentdError) as caught:
        await answers(calls, "client", PIXELS, deadline_duration={"nanos": 10_000_000})
    assert caught.value.reason is Reason.DEADLINE_EXPIRED
    assert "0.01 seconds" in caught.value.message
    assert scheduler.waiting == 0
    assert place.strips == []
    scheduler.release()
    assert await answers(calls, "client", PIXELS, deadline_duration={"seconds": 60})


async def test_a_plane_whose_deadline_passes_while_it_is_paused_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Turn, "quantum_pixels", 1)
    calls, scheduler = PlaneCalls(place.engine), place.engine.scheduler
    await scheduler.acquire("gate")
    fields: dict[str, Any] = {"deadline_duration": {"nanos": 300_000_000}}
    late = asyncio.create_task(answers(calls, "client", LARGE, **fields))
    await waiting(scheduler, 1)
    other = asyncio.create_task(scheduler.acquire("other"))
    await waiting(scheduler, 2)
    scheduler.release()
    await other  # the plane gave way, and is not let in again
    with pytest.raises(SegmentdError) as caught:
        await late
    assert caught.value.reason is Reason.DEADLINE_EXPIRED
    assert len(place.strips) < STRIPS
    scheduler.release()
    assert (scheduler.in_flight, scheduler.waiting, scheduler.paused) == (0, 0, 0)


async def test_a_call_that_is_cancelled_ends_while_it_is_paused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Turn, "quantum_pixels", 1)
    calls, scheduler = PlaneCalls(place.engine), place.engine.scheduler
    await scheduler.acquire("gate")
    call = asyncio.create_task(answers(calls, "client", LARGE))
    await waiting(scheduler, 1)
    other = asyncio.create_task(scheduler.acquire("other"))
    await waiting(scheduler, 2)
    scheduler.release()
    await other
    assert scheduler.paused == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(place.strips) < STRIPS
    scheduler.release()
    assert (scheduler.in_flight, scheduler.waiting, scheduler.paused) == (0, 0, 0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"priority": 1001}, "head.priority"),
        ({"deadline_duration": {"seconds": 0}}, "head.deadline_duration"),
        ({"deadline_duration": {"seconds": -1}}, "head.deadline_duration"),
        ({"deadline_duration": {"seconds": 8 * 86_400}}, "head.deadline_duration"),
    ],
)
async def test_fields_out_of_range_are_refused(place: Place, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(SegmentdError) as caught:
        await answers(PlaneCalls(place.engine), "client", PIXELS, **fields)
    assert caught.value.metadata["field"] == field
