"""A watched folder: what is handed over, when, and what happens when the folder goes away."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from segmentd.errors import Reason
from segmentd.ingest import folder as folder_module
from segmentd.ingest import listen, reach, scan
from segmentd.ingest.folder import FolderWatch, FoundFile, Ignore
from segmentd.records import FileStamp, WatchSpec

PIXELS = np.arange(400, dtype=np.uint8).reshape(20, 20)
PATIENCE_SECONDS = 20.0


class FakeClock:
    """A clock that stands still until the test moves it, and then only as far as the watch waits."""

    def __init__(self) -> None:
        self._now = self._limit = 0.0
        self._moved = asyncio.Event()
        self._idle = asyncio.Event()

    def now(self) -> float:
        return self._now

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        target = self._now + seconds
        while not event.is_set() and self._now < target:
            if self._limit >= target:
                self._now = target
                return
            self._now = self._limit
            self._moved.clear()
            self._idle.set()
            waits = [asyncio.ensure_future(one.wait()) for one in (event, self._moved)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()

    async def settled(self) -> None:
        await asyncio.wait_for(self._idle.wait(), PATIENCE_SECONDS)

    async def advance(self, seconds: float) -> None:
        self._limit += seconds
        self._idle.clear()
        self._moved.set()
        await self.settled()


class Pipeline:
    """Takes files over, and knows them from then on."""

    def __init__(self) -> None:
        self.found: list[FoundFile] = []
        self.arrived = asyncio.Event()
        self.journal: set[tuple[bytes, FileStamp]] = set()
        self.ends_of_first_looks = 0

    def known(self, path: bytes, stamp: FileStamp) -> bool:
        return (path, stamp) in self.journal

    async def deliver(self, found: FoundFile) -> None:
        self.journal.add((found.relative, found.stamp))
        self.found.append(found)
        self.arrived.set()

    async def ignore(self, files: Sequence[scan.Sighting]) -> None:
        self.journal.update((file.path, file.stamp) for file in files)
        self.ends_of_first_looks += not files

    def take(self) -> list[bytes]:
        paths = [found.relative for found in self.found]
        self.found.clear()
        return paths


@pytest.fixture
def spec(tmp_path: Path) -> WatchSpec:
    folder = tmp_path / "watched"
    folder.mkdir()
    return WatchSpec(id="w", folder=folder, model="m", results=folder / "segmented", poll="always")


@asynccontextmanager
async def watching(
    spec: WatchSpec, pipeline: Pipeline, clock: FakeClock | None, ignore: Ignore | None = None
) -> AsyncIterator[FolderWatch]:
    watch = FolderWatch(spec, clock)
    task = asyncio.create_task(watch.run(pipeline.known, pipeline.deliver, ignore))
    try:
        if clock is not None:
            await clock.settled()
        yield watch
        assert not task.done(), task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def image(path: Path, pixels: np.ndarray[Any, Any] = PIXELS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels)
    return path


async def test_files_are_handed_over_after_the_quiet_time(spec: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    image(spec.folder / "old.tif")
    async with watching(spec, pipeline, clock) as watch:
        assert watch.status.state == "active"
        assert (watch.status.mode, watch.status.mode_reason) == ("poll", 'poll = "always"')
        assert watch.status.waiting == 1
        await clock.advance(1.9)
        assert pipeline.take() == []
        await clock.advance(0.1)
        [found] = pipeline.found
        assert found == FoundFile(
            b"old.tif", bytes(spec.folder / "old.tif"), found.stamp, complete_time_monotonic=2.0
        )
        assert found.stamp.size_bytes == (spec.folder / "old.tif").stat().st_size
        assert watch.status.waiting == 0
        pipeline.take()
        image(spec.folder / "sub" / "deep" / "new.tif")
        await clock.advance(5)
        assert pipeline.take() == [b"sub/deep/new.tif"]
        await clock.advance(100)
        assert pipeline.take() == []


async def test_what_the_journal_knows_is_not_handed_over_again(spec: WatchSpec) -> None:
    path = image(spec.folder / "a.tif")
    pipeline = Pipeline()
    async with watching(spec, pipeline, clock := FakeClock()):
        await clock.advance(3)
        assert pipeline.take() == [b"a.tif"]
    async with watching(spec, pipeline, clock := FakeClock()):
        await clock.advance(10)
        assert pipeline.take() == []
        image(path, PIXELS[:10])
        await clock.advance(5)
        assert pipeline.take() == [b"a.tif"]


async def test_results_temporary_files_and_other_files_are_left_alone(spec: WatchSpec) -> None:
    names = "segmented/a.tif a.tif.labels.ome.tif a.tif.part .a.tif sub/~$a.tif notes.txt"
    for name in names.split():
        image(spec.folder / name)
    async with watching(spec, Pipeline(), clock := FakeClock()) as watch:
        await clock.advance(20)
        assert watch.status.waiting == 0


async def test_an_incomplete_file_is_given_up_and_taken_up_when_it_grows(spec: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    path = image(spec.folder / "a.tif")
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    async with watching(spec, pipeline, clock) as watch:
        await clock.advance(9)
        assert (pipeline.found, watch.status.waiting) == ([], 1)
        await clock.advance(2)
        [found] = pipeline.found
        assert found.fault is not None
        assert found.fault.reason == Reason.IMAGE_INCOMPLETE
        assert "a.tif is incomplete" in found.fault.message
        await clock.advance(100)
        assert len(pipeline.found) == 1
        path.write_bytes(data)
        await clock.advance(5)
        assert pipeline.found[1].fault is None


async def test_a_file_that_keeps_growing_is_waited_for(spec: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    path = image(spec.folder / "a.tif")
    data = path.read_bytes()
    async with watching(spec, pipeline, clock):
        for size in range(10, len(data), 40):
            path.write_bytes(data[:size])
            await clock.advance(1.5)
        assert pipeline.found == []
        path.write_bytes(data)
        await clock.advance(5)
        assert [found.fault for found in pipeline.found] == [None]


async def test_a_text_file_with_the_name_of_an_image_is_a_fault(spec: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    (spec.folder / "a.tif").write_text("no image, and long enough to be one")
    async with watching(spec, pipeline, clock):
        await clock.advance(2)
        [found] = pipeline.found
        assert found.fault is not None
        assert found.fault.reason == Reason.IMAGE_UNSUPPORTED


async def test_a_file_that_goes_away_is_forgotten(spec: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    path = image(spec.folder / "a.tif")
    async with watching(spec, pipeline, clock) as watch:
        path.unlink()
        await clock.advance(3)
        assert (pipeline.found, watch.status.waiting) == ([], 0)


async def test_existing_files_can_be_ignored(spec: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    path = image(spec.folder / "old.tif")
    async with watching(spec, pipeline, clock, pipeline.ignore):
        assert pipeline.ends_of_first_looks == 1
        assert pipeline.journal == {(b"old.tif", scan.sight(bytes(spec.folder), [b"old.tif"])[0].stamp)}
        image(spec.folder / "new.tif")
        await clock.advance(10)
        assert pipeline.take() == [b"new.tif"]
        image(path, PIXELS[:10])
        await clock.advance(10)
        assert pipeline.take() == [b"old.tif"]


async def test_only_what_the_watch_includes_is_taken(spec: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    for name in ("a.tif", "b.png.tif", "raw/c.tif", "raw/deep/d.tif"):
        image(spec.folder / name)
    async with watching(replace(spec, include=("b*", "raw/*")), pipeline, clock):
        await clock.advance(3)
        assert sorted(pipeline.take()) == [b"b.png.tif", b"raw/c.tif", b"raw/deep/d.tif"]
    pipeline.journal.clear()
    async with watching(replace(spec, recursive=False), pipeline, clock := FakeClock()):
        await clock.advance(3)
        assert sorted(pipeline.take()) == [b"a.tif", b"b.png.tif"]


async def test_a_folder_that_is_not_there_yet_is_waited_for(spec: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    spec.folder.rmdir()
    async with watching(spec, pipeline, clock) as watch:
        assert watch.status.state == "unreachable"
        assert "No such file" in watch.status.state_reason
        await clock.advance(100)
        assert watch.status.state == "unreachable"
        image(spec.folder / "a.tif")
        await clock.advance(30)
        assert watch.status.state == "active"
        assert watch.status.state_reason == ""
        await clock.advance(3)
        assert pipeline.take() == [b"a.tif"]


async def test_a_folder_that_goes_away_comes_back_by_itself(spec: WatchSpec, tmp_path: Path) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    image(spec.folder / "a.tif")
    async with watching(spec, pipeline, clock) as watch:
        await clock.advance(3)
        spec.folder.rename(tmp_path / "away")
        await clock.advance(3)
        assert watch.status.state == "unreachable"
        (tmp_path / "away").rename(spec.folder)
        image(spec.folder / "b.tif")
        await clock.advance(40)
        assert watch.status.state == "active"
        assert pipeline.take() == [b"a.tif", b"b.tif"]


async def test_a_folder_that_is_replaced_is_noticed_although_it_was_never_away(
    spec: WatchSpec, tmp_path: Path
) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    async with watching(replace(spec, poll_seconds=1000.0), pipeline, clock):
        shutil.move(spec.folder, tmp_path / "away")
        image(spec.folder / "a.tif")
        await clock.advance(10)
        assert pipeline.take() == [b"a.tif"]


async def test_a_share_that_fails_is_out_of_reach_and_nothing_is_taken_as_gone(
    spec: WatchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    image(spec.folder / "a.tif")
    portion = scan.Scan.portion

    def fail(self: scan.Scan, size: int) -> Any:
        raise OSError(116, "Stale file handle")

    async with watching(spec, pipeline, clock) as watch:
        monkeypatch.setattr(scan.Scan, "portion", fail)
        await clock.advance(2)
        assert watch.status.state == "unreachable"
        assert "Stale file handle" in watch.status.state_reason
        monkeypatch.setattr(scan.Scan, "portion", portion)
        await clock.advance(5)
        assert watch.status.state == "active"
        assert pipeline.take() == [b"a.tif"]


async def test_without_its_marker_file_a_folder_is_the_empty_mount_point_of_a_share(
    spec: WatchSpec,
) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    image(spec.folder / "a.tif")
    async with watching(replace(spec, marker_file="here/.share"), pipeline, clock) as watch:
        await clock.advance(10)
        assert watch.status.state == "unreachable"
        assert "here/.share is not there; is the share mounted?" in watch.status.state_reason
        (spec.folder / "here").mkdir()
        (spec.folder / "here" / ".share").touch()
        await clock.advance(40)
        assert (watch.status.state, pipeline.take()) == ("active", [b"a.tif"])
        (spec.folder / "here" / ".share").unlink()
        image(spec.folder / "b.tif")
        await clock.advance(3)
        assert (watch.status.state, pipeline.take()) == ("unreachable", [])


async def test_a_share_that_does_not_answer_is_out_of_reach(
    spec: WatchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    image(spec.folder / "a.tif")
    hanging = threading.Event()
    looking = scan.look

    def look(*args: Any) -> Any:
        assert hanging.wait(PATIENCE_SECONDS)
        return looking(*args)

    monkeypatch.setattr(folder_module, "look", look)
    monkeypatch.setattr(reach, "HANG_SECONDS", 0.05)
    async with watching(spec, pipeline, clock) as watch:
        await clock.advance(5)
        assert watch.status.state == "unreachable"
        assert "no answer" in watch.status.state_reason
        hanging.set()
        monkeypatch.setattr(reach, "HANG_SECONDS", PATIENCE_SECONDS)
        await clock.advance(40)
        assert (watch.status.state, pipeline.take()) == ("active", [b"a.tif"])


async def test_retries_wait_longer_and_longer_but_never_long(spec: WatchSpec) -> None:
    clock = FakeClock()
    waits: list[float] = []
    wait = clock.wait

    async def remember(event: asyncio.Event, seconds: float) -> None:
        waits.append(seconds)
        await wait(event, seconds)

    clock.wait = remember  # type: ignore[method-assign]
    spec.folder.rmdir()
    async with watching(spec, Pipeline(), clock):
        await clock.advance(200)
    assert waits[:8] == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_an_unreadable_file_is_told_once_and_taken_up_when_it_is_readable(
    spec: WatchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pipeline = FakeClock(), Pipeline()
    image(spec.folder / "a.tif")
    real, readable = scan.confine.open_in, False

    def open_in(*args: Any) -> int:
        if not readable:
            raise PermissionError(13, "Permission denied")
        return real(*args)

    monkeypatch.setattr(scan.confine, "open_in", open_in)
    async with watching(spec, pipeline, clock):
        await clock.advance(60)
        [found] = pipeline.found
        assert found.fault is not None
        assert found.fault.reason == Reason.IMAGE_UNREADABLE
        readable = True
        await clock.advance(20)
        assert [found.fault for found in pipeline.found[1:]] == [None]
        await clock.advance(60)
        assert len(pipeline.found) == 2


async def test_a_full_pipeline_is_waited_for_and_memory_is_bounded(
    spec: WatchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "MAX_WAITING", 4)
    for number in range(20):
        image(spec.folder / f"{number:02}.tif")
    clock, pipeline = FakeClock(), Pipeline()
    async with watching(spec, pipeline, clock) as watch:
        assert watch.status.waiting == 20
        seen = 0
        for _ in range(40):
            await clock.advance(1)
            assert len(watch._settle) <= 4
            seen = max(seen, len(pipeline.found))
        assert sorted(pipeline.take()) == [b"%02d.tif" % number for number in range(20)]


async def test_what_deliver_raises_ends_the_watch(spec: WatchSpec) -> None:
    image(spec.folder / "a.tif")

    async def refuse(found: FoundFile) -> None:
        raise RuntimeError("of the pipeline")

    watch = FolderWatch(replace(spec, settle_seconds=0.0))
    with pytest.raises(RuntimeError, match="of the pipeline"):
        await asyncio.wait_for(watch.run(lambda path, stamp: False, refuse), PATIENCE_SECONDS)


async def test_no_events_to_be_had_means_polling_with_a_reason(
    spec: WatchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(listen, "FolderEvents", refuse)
    async with watching(replace(spec, poll="auto"), pipeline := Pipeline(), clock := FakeClock()) as watch:
        assert watch.status.mode == "poll"
        assert "raise fs.inotify.max_user_watches" in watch.status.mode_reason
        image(spec.folder / "a.tif")
        await clock.advance(4)
        assert pipeline.take() == [b"a.tif"]


async def test_a_remote_folder_is_polled(spec: WatchSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "why_no_events", lambda folder: "it is on cifs")
    async with watching(replace(spec, poll="auto"), Pipeline(), FakeClock()) as watch:
        assert (watch.status.mode, watch.status.mode_reason) == ("poll", "it is on cifs")
    async with watching(replace(spec, poll="never"), Pipeline(), FakeClock()) as watch:
        assert watch.status.mode == "events"


@pytest.fixture
def slow(spec: WatchSpec) -> WatchSpec:
    """With times so long that only events can be the reason for anything to happen."""
    return replace(spec, poll="never", settle_seconds=1000.0, give_up_seconds=2000.0, rescan_seconds=3000.0)


async def active(watch: FolderWatch) -> None:
    for _ in range(2000):
        if watch.status.state == "active":
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def expect(pipeline: Pipeline, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await pipeline.arrived.wait()
            pipeline.arrived.clear()


async def test_a_file_that_is_closed_is_handed_over_at_once(slow: WatchSpec) -> None:
    (slow.folder / "sub").mkdir()
    pipeline = Pipeline()
    async with watching(slow, pipeline, None) as watch:
        await active(watch)
        assert watch.status.mode == "events"
        image(slow.folder / "a.tif")
        await expect(pipeline, lambda: len(pipeline.found) == 1)
        image(slow.folder / "sub" / "b.tif")
        await expect(pipeline, lambda: len(pipeline.found) == 2)
        image(slow.folder / "c.tif.part").rename(slow.folder / "c.tif")
        await expect(pipeline, lambda: len(pipeline.found) == 3)
    assert pipeline.take() == [b"a.tif", b"sub/b.tif", b"c.tif"]


async def test_trees_that_appear_at_once_are_seen_whole(spec: WatchSpec, tmp_path: Path) -> None:
    """Files that are older than the watch of their folder were not seen to be closed: they settle."""
    spec = replace(spec, poll="never", settle_seconds=0.2, rescan_seconds=3000.0)
    for number in range(30):
        image(tmp_path / "tree" / f"{number // 10}" / f"{number}.tif")
    pipeline = Pipeline()
    async with watching(spec, pipeline, None) as watch:
        await active(watch)
        (tmp_path / "tree").rename(spec.folder / "moved")
        shutil.copytree(spec.folder / "moved", spec.folder / "copied")
        await expect(pipeline, lambda: len(set(pipeline.journal)) == 60)
    assert len(pipeline.take()) == 60
