"""Watches of the configuration and those of the journal beside each other, at a start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segmentd.engine.lane import CpuLane
from segmentd.engine.scheduler import Scheduler
from segmentd.errors import Reason, SegmentdError
from segmentd.models.registry import Registry
from segmentd.pipeline import Engine
from segmentd.process.claims import Claims
from segmentd.records import ResultEvent, SegmentationState
from segmentd.results.feed import Feed
from segmentd.results.journal import Journal
from segmentd.results.watch_store import WatchStore
from segmentd.settings.schema import WatchSettings
from segmentd.watches import Parts, Watch, Watches
from segmentd.workers import WorkerPool

from . import tiny_model


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    tiny_model.save(tmp_path / "models" / "cells.segmodel")
    lane, journal = CpuLane(1), Journal.open(tmp_path / "journal")
    registry = Registry(tmp_path / "models", lane.load, lane.unload)
    with WorkerPool(1) as pool:
        yield Parts(Engine(registry, lane, Scheduler(1)), pool, journal, Feed(journal), Claims())
    journal.close()
    lane.close()


@pytest.fixture
def store(parts: Parts) -> WatchStore:
    return WatchStore(parts.journal)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Make the keys of a watch, and its folder."""

    def make(identity: str, **keys: Any) -> dict[str, Any]:
        (tmp_path / identity).mkdir(exist_ok=True)
        return {"id": identity, "folder": str(tmp_path / identity), "model": "cells", **keys}

    return make


@asynccontextmanager
async def running(watches: Watches) -> AsyncIterator[asyncio.Task[None]]:
    """Run the watches until each has looked at its folder, or is held."""
    task = asyncio.create_task(watches.run())
    await asyncio.sleep(0)
    await asyncio.gather(*(watch.first_scan() for watch in watches.list()))
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await watches.finish()


async def state(watch: Watch) -> tuple[str, str]:
    status = await watch.status()
    return status.state, status.state_reason


async def test_the_configuration_goes_first(
    parts: Parts, store: WatchStore, table: Callable[..., dict[str, Any]]
) -> None:
    store.save("a", table("a", tile=64))
    store.save("b", table("b"))
    store.save("c", table("a", id="c"))
    store.save("broken", table("broken", tile=1))
    for name in ("a", "b"):
        store.set_paused(name, True)
    watches = Watches([WatchSettings(**table("a"))], (), parts, store)
    assert [watch.spec.id for watch in watches.list()] == ["a", "b", "c"]
    a, b, c = watches.list()
    assert (a.configured, a.spec.options.tile_px, a.paused) == (True, None, True)
    assert (b.configured, b.paused, c.paused) == (False, True, False)
    async with running(watches):
        assert (await state(a))[0] == "paused"
        held, why = await state(c)
        assert held == "failed"
        assert "must differ from watches/a.folder" in why
    assert set(store.watches()) == {"a", "b", "c", "broken"}


async def test_a_watch_that_the_roots_no_longer_allow_is_held(
    parts: Parts, store: WatchStore, table: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    store.save("a", table("a"))
    watches = Watches([], [tmp_path / "elsewhere"], parts, store)
    async with running(watches):
        assert (await state(watches.get("a")))[0] == "failed"
        assert "server.roots" in (await state(watches.get("a")))[1]


async def test_what_ends_one_watch_ends_all(
    parts: Parts, store: WatchStore, table: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    watches = Watches([WatchSettings(**table("a"))], (), parts, store)
    async with running(watches) as task:

        async def run(self: Watch) -> None:
            raise SegmentdError(Reason.JOURNAL_NOT_WRITABLE, "no more")

        monkeypatch.setattr(Watch, "run", run)
        await watches.create(table("b"))
        with pytest.raises(SegmentdError, match="no more"):
            await task


async def test_an_etag_tells_settings_and_pauses_apart(
    parts: Parts, store: WatchStore, table: Callable[..., dict[str, Any]]
) -> None:
    watches = Watches([], (), parts, store)
    etags = [(await watches.create(table("a"))).etag]
    etags.append((await watches.update("a", {"tile": 64})).etag)
    etags.append((await watches.set_paused("a", True)).etag)
    assert len(set(etags)) == 3
    await watches.set_paused("a", False)
    assert (await watches.update("a", {"tile": None})).etag == etags[0]
    assert Watches([], (), parts, store).get("a").etag == etags[0]


async def test_a_watch_can_be_paused_and_changed_again_and_again(
    parts: Parts, store: WatchStore, table: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    watches = Watches([WatchSettings(**table("b"))], (), parts, store)
    async with running(watches) as task:
        a = await watches.create(table("a", settle_seconds=0.05))
        for round_ in range(8):
            await asyncio.sleep(0.01 * round_)  # at another point of its beginning each time
            await watches.update("a", {"tile": 64 + round_})
            await watches.set_paused("a", True)
            await watches.set_paused("a", False)
        pixels = np.zeros((40, 40), np.uint8)
        tifffile.imwrite(tmp_path / "a" / "image.tif", pixels)
        feed = parts.feed.subscribe("a", start="oldest")
        async with asyncio.timeout(30), aclosing(feed):
            event = await anext(item async for item in feed if isinstance(item, ResultEvent))
        assert event.segmentation.state is SegmentationState.SUCCEEDED
        assert not task.done()
        assert a.spec.options.tile_px == 71
