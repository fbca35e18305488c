"""What is done early of growing images, and when it is forgotten: a real decoder, lane and journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from segmentd import telemetry
from segmentd.engine.lane import CpuLane
from segmentd.ingest import confine
from segmentd.ingest.growing import GrowingImage, Grown
from segmentd.ingest.settle import Settle
from segmentd.pipeline import Engine, Pipeline
from segmentd.process.claims import Claims
from segmentd.records import FileStamp
from segmentd.results.early_planes import EarlyStore
from segmentd.watches import growing
from segmentd.watches.growing import Growing
from segmentd.watches.hold import Hold
from segmentd.watches.parts import Parts
from segmentd.workers import WorkerPool

from ..pipeline_bench import Bench

STACK = np.random.default_rng(5).integers(1, 255, (5, 30, 40), np.uint8)
MEMORY = 1 << 20


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as started:
        yield started


class Scene(Bench):
    """A bench with growing images; they are noted as files of the folder by `grow`."""

    def __init__(self, folder: Path, pool: WorkerPool, lane: CpuLane) -> None:
        super().__init__(folder, pool, lane)
        self.spec = replace(self.spec, as_it_grows=True)
        engine = Engine(self.registry, lane, self.scheduler)
        self.store = EarlyStore(memory_bytes=MEMORY, disk_bytes=0)
        parts = Parts(engine, pool, self.journal, self.feed, Claims(), self.store)
        self.settle = Settle(1000.0, 1000.0)
        self.growing = Growing(parts, Hold("hot"))
        self.pipeline = Pipeline(
            self.spec, engine, pool, self.journal, self.feed, self.hold, early=self.growing.early
        )

    def write_planes(self, count: int, name: str = "a.tif", pixels: Any = STACK) -> Path:
        path = self.folder / "hot" / name
        with tifffile.TiffWriter(path) as writer:
            for plane in pixels[:count]:
                writer.write(plane, contiguous=False, metadata=None)
        self.settle.sighted(name.encode(), self.stamp(path), 0.0)
        return path

    def stamp(self, path: Path) -> FileStamp:
        return confine.make_stamp(path.stat())

    def all_given_back(self) -> bool:
        free = self.store.take_memory(MEMORY)
        self.store.give_back(MEMORY if free else 0, 0)
        return free


@pytest.fixture
async def scene(tmp_path: Path, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(growing, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(growing, "PAUSE_SHARE", 0.0)
    lane = CpuLane(1)
    made = Scene(tmp_path, pool, lane)
    folder: Any = SimpleNamespace(settle=made.settle)
    task = asyncio.create_task(made.growing.run(folder, made.spec, made.spec.model))
    yield made
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert made.all_given_back()
    made.journal.close()
    lane.close()


def count(name: str) -> int:
    return telemetry.METER.counts().get(name, 0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (what another thread counts)
            await asyncio.sleep(0.005)


async def test_planes_computed_early_are_not_computed_again(scene: Scene) -> None:
    before, used = count("early_planes"), count("early_planes_used")
    path = scene.write_planes(3)
    await until(lambda: count("early_planes") == before + 2)
    with tifffile.TiffWriter(path, append=True) as writer:
        for plane in STACK[3:]:
            writer.write(plane, contiguous=False, metadata=None)
    await until(lambda: count("early_planes") == before + 4)
    found = scene.found()
    await scene.growing.hand_over(found.stamp)
    await scene.process(found)
    assert count("early_planes_used") == used + 4
    assert [event.segmentation.plane.z for event in scene.events()] == list(range(5))
    scene.growing.ended(found.stamp)
    assert scene.all_given_back()


async def test_a_file_that_goes_or_is_replaced_leaves_nothing(scene: Scene) -> None:
    before = count("early_planes")
    path = scene.write_planes(3)
    await until(lambda: count("early_planes") == before + 2)
    assert not scene.all_given_back()
    path.unlink()
    scene.settle.gone(b"a.tif")
    await until(scene.all_given_back)


async def test_an_image_that_does_not_fit_the_model_is_left_for_the_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    look = GrowingImage.look

    def noted(self: GrowingImage, first: int) -> Grown:
        looks.append(self.name)
        return look(self, first)

    monkeypatch.setattr(GrowingImage, "look", noted)
    before = count("early_planes")
    scene.write_planes(3, pixels=STACK.astype(np.float32))
    await until(lambda: looks == ["a.tif"])
    for planes in (3, 4, 5):
        scene.write_planes(planes, pixels=STACK.astype(np.float32))
        scene.write_planes(planes, "b.tif")
        await until(lambda expected=planes: count("early_planes") == before + expected - 1)  # type: ignore[misc]
    assert looks.count("a.tif") == 1


async def test_who_looks_on_sees_planes_and_how_many_are_promised(scene: Scene) -> None:
    with scene.feed.previews.onlooker("hot") as news:
        before = count("early_planes")
        scene.write_planes(4)
        await until(lambda: count("early_planes") == before + 3)
        shown = news()
    told = [one.segmentation for one in shown]
    assert [(one.source, one.plane.z, one.plane_count, one.version) for one in told] == [
        (b"a.tif", z, 0, 1) for z in range(3)
    ]
    assert all(sum(one.label_pixel_counts) == STACK[0].size for one in told)


async def test_what_was_handed_over_is_not_looked_at_any_more(scene: Scene) -> None:
    path = scene.write_planes(3)
    before = count("early_planes")
    await until(lambda: count("early_planes") == before + 2)
    stamp = scene.stamp(path)
    await scene.growing.hand_over(stamp)
    scene.write_planes(5, "other.tif")
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.write(b"more")
    scene.settle.sighted(b"a.tif", scene.stamp(path), 1.0)
    await until(lambda: count("early_planes") == before + 6)  # of the other one
    early = scene.growing.early(stamp, scene.spec.options)
    assert early is not None
    scene.growing.ended(stamp)
    assert scene.growing.early(stamp, scene.spec.options) is None
