"""The way of one image: every end it can come to, with a real journal, store, lane and decoder."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentd import pipeline
from segmentd.engine.lane import CpuLane
from segmentd.engine.slot import Slot
from segmentd.errors import Reason, SegmentdError
from segmentd.records import Fault, SegmentationState
from segmentd.results.images import ImageOutcome, ImageState
from segmentd.results.journal import Journal
from segmentd.results.previews import Preview
from segmentd.results.store import ResultWriter
from segmentd.workers import WorkerPool

from .pipeline_bench import PIXELS, Act, Bench, Hooks


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as started:
        yield started


@pytest.fixture
def hooks(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    hooks = Hooks()
    monkeypatch.setattr(pipeline, "HOLD_SECONDS", 0.0)
    monkeypatch.setattr(pipeline, "RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(pool, "call", hooks.before(hooks.pool, pool.call))
    monkeypatch.setattr(CpuLane, "segment", hooks.before(hooks.lane, CpuLane.segment))
    monkeypatch.setattr(Journal, "record", hooks.before(hooks.record, Journal.record))
    monkeypatch.setattr(ResultWriter, "commit", hooks.before(hooks.commit, ResultWriter.commit))
    return hooks


@pytest.fixture
def bench(tmp_path: Path, pool: WorkerPool, hooks: Hooks) -> Iterator[Bench]:
    lane = CpuLane(1)
    made = Bench(tmp_path, pool, lane)
    yield made
    made.journal.close()
    lane.close()


def failing(reason: Reason) -> Act:
    def fail() -> None:
        raise SegmentdError(reason, f"it is {reason}")

    return fail


def digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


BOTH = ["a.tif.confidence.ome.tif", "a.tif.labels.ome.tif"]


async def test_an_image_becomes_files_and_an_event(bench: Bench) -> None:
    bench.write()
    found = bench.found()
    assert not bench.journal.known("hot", b"a.tif", found.stamp)
    await bench.process(found)
    (event,) = bench.events()
    segmentation = event.segmentation
    assert (segmentation.watch, segmentation.source, segmentation.source_path) == (
        "hot",
        b"a.tif",
        found.path,
    )
    assert (segmentation.state, segmentation.version) == (SegmentationState.SUCCEEDED, 1)
    assert (segmentation.height, segmentation.width) == PIXELS.shape
    assert sum(segmentation.label_pixel_counts) == PIXELS.size
    assert segmentation.source_time == pytest.approx(found.stamp.mtime_ns / 1e9)
    assert segmentation.latency_seconds > 0
    assert bench.results() == BOTH
    assert bench.journal.known("hot", b"a.tif", found.stamp)
    assert bench.held == []


async def test_planes_of_a_stack_are_published_together(bench: Bench) -> None:
    bench.write(pixels=np.stack([PIXELS, PIXELS // 2]), imagej=True, metadata={"axes": "TYX"})
    await bench.process(bench.found())
    planes = [event.segmentation for event in bench.events()]
    assert [(plane.plane.time, plane.page, plane.plane_count) for plane in planes] == [(0, 0, 2), (1, 1, 2)]
    assert len({tuple(plane.files.items()) for plane in planes}) == 1


async def test_planes_of_a_stack_are_shown_before_it_is_published(bench: Bench, hooks: Hooks) -> None:
    bench.write(pixels=np.stack([PIXELS, PIXELS // 2]), imagej=True, metadata={"axes": "TYX"})
    with bench.feed.previews.onlooker("hot") as news:
        shown: list[Preview] = []
        hooks.commit.append(lambda: shown.extend(news()))
        await bench.process(bench.found())
        assert news() == []
    told = [one.segmentation for one in shown]
    assert [(one.source, one.plane.time, one.plane_count) for one in told] == [
        (b"a.tif", 0, 2),
        (b"a.tif", 1, 2),
    ]
    published = bench.feed.recent
    for one, event in zip(shown, bench.events(), strict=True):
        record = event.segmentation
        planes = published.get(record.files, record.digests, record.page)
        assert planes is not None
        np.testing.assert_array_equal(one.planes[0], planes[0])
        assert one.segmentation.label_pixel_counts == record.label_pixel_counts


async def test_the_same_content_is_not_published_again(bench: Bench) -> None:
    path = bench.write()
    await bench.process(bench.found())
    path.write_bytes(path.read_bytes())
    touched = bench.found()
    await bench.process(touched)
    assert len(bench.events()) == 1
    assert bench.journal.known("hot", b"a.tif", touched.stamp)


async def test_new_content_is_a_new_version(bench: Bench) -> None:
    for version, pixels in ((1, PIXELS), (2, PIXELS.T), (3, PIXELS)):
        bench.write(pixels=pixels)
        await bench.process(bench.found())
        assert bench.events()[-1].segmentation.version == version
    assert bench.results() == BOTH


async def test_deleted_results_are_made_again_when_the_image_is_touched(bench: Bench) -> None:
    path = bench.write()
    await bench.process(bench.found())
    (bench.spec.results / BOTH[0]).unlink()
    path.write_bytes(path.read_bytes())
    await bench.process(bench.found())
    assert [event.segmentation.version for event in bench.events()] == [1, 1]
    assert bench.results() == BOTH


async def test_a_renamed_image_is_told_and_not_segmented_again(bench: Bench, hooks: Hooks) -> None:
    path = bench.write()
    await bench.process(bench.found())
    hooks.lane.append(lambda: pytest.fail("it was computed again"))
    path.rename(path.with_name("b.tif"))
    await bench.process(bench.found("b.tif"))
    first, second = (event.segmentation for event in bench.events())
    assert (second.state, second.source, second.renamed_from) == (
        SegmentationState.RENAMED,
        b"b.tif",
        b"a.tif",
    )
    assert (second.version, second.content_digest, second.height) == (1, first.content_digest, 30)
    assert second.digests == first.digests
    assert bench.results() == sorted([*BOTH, *(name.replace("a.", "b.", 1) for name in BOTH)])
    assert {Path(file).name for file in second.files.values()} == {n.replace("a.", "b.", 1) for n in BOTH}
    path.with_name("b.tif").rename(path)
    await bench.process(bench.found())
    third = bench.events()[-1].segmentation
    assert (third.state, third.source, third.renamed_from) == (SegmentationState.RENAMED, b"a.tif", b"b.tif")
    hooks.lane.clear()
    assert bench.journal.counts("hot")[ImageState.DONE] == 1


async def test_an_image_under_the_name_of_a_renamed_one_leaves_its_results_alone(bench: Bench) -> None:
    path = bench.write()
    await bench.process(bench.found())
    path.rename(path.with_name("b.tif"))
    bench.write(pixels=PIXELS.T)
    await bench.process(bench.found("b.tif"))
    await bench.process(bench.found("a.tif"))
    states = [(event.segmentation.state.value, event.segmentation.version) for event in bench.events()]
    assert states == [("SUCCEEDED", 1), ("RENAMED", 1), ("SUCCEEDED", 2)]
    renamed = bench.events()[1].segmentation
    assert {kind: digest(file) for kind, file in renamed.files.items()} == renamed.digests


async def test_a_copy_and_a_link_are_images_of_their_own(bench: Bench) -> None:
    path = bench.write()
    await bench.process(bench.found())
    path.with_name("copy.tif").write_bytes(path.read_bytes())
    path.with_name("link.tif").hardlink_to(path)
    for name in ("copy.tif", "link.tif"):
        await bench.process(bench.found(name))
    assert {event.segmentation.state for event in bench.events()} == {SegmentationState.SUCCEEDED}
    assert len(bench.events()) == 3


async def test_a_file_that_was_renamed_and_changed_is_a_new_image(bench: Bench) -> None:
    path = bench.write()
    await bench.process(bench.found())
    path.rename(path.with_name("b.tif"))
    with path.with_name("b.tif").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    await bench.process(bench.found("b.tif"))
    assert [event.segmentation.state for event in bench.events()] == [SegmentationState.SUCCEEDED] * 2


async def test_the_rename_of_an_ignored_image_is_ignored(bench: Bench) -> None:
    path = bench.write()
    bench.journal.record(ImageOutcome("hot", b"a.tif", bench.found().stamp, ImageState.IGNORED))
    path.rename(path.with_name("b.tif"))
    await bench.process(bench.found("b.tif"))
    assert bench.events() == []
    assert bench.journal.known("hot", b"b.tif", bench.found("b.tif").stamp)
    bench.write("b.tif", PIXELS.T)
    await bench.process(bench.found("b.tif"))
    assert bench.events()[0].segmentation.state is SegmentationState.SUCCEEDED


async def test_the_same_failure_of_the_same_file_is_told_once(bench: Bench) -> None:
    path = bench.write(pixels=PIXELS.astype(np.uint16))
    await bench.process(bench.found())
    path.chmod(0o600)
    assert not bench.journal.known("hot", b"a.tif", bench.found().stamp)
    await bench.process(bench.found())
    assert len(bench.events()) == 1
    assert bench.journal.known("hot", b"a.tif", bench.found().stamp)


async def test_what_ingest_found_wrong_fails_without_a_look(bench: Bench, hooks: Hooks) -> None:
    bench.write()
    hooks.pool.append(lambda: pytest.fail("it was opened"))
    fault = Fault(Reason.IMAGE_INCOMPLETE, "a.tif is incomplete", {"file": "a.tif"})
    await bench.process(bench.found(fault=fault))
    assert bench.the_fault() == fault
    assert bench.results() == []


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (PIXELS.astype(np.uint16), "PIXEL_TYPE_MISMATCH"),
        (np.stack([PIXELS] * 3, -1), "CHANNEL_COUNT_MISMATCH"),
    ],
)
async def test_what_does_not_fit_the_model_fails_and_leaves_no_file(
    bench: Bench, pixels: Any, reason: str
) -> None:
    bench.write("sub/a.tif", pixels)
    await bench.process(bench.found("sub/a.tif"))
    assert bench.the_fault().reason == reason
    assert "sub/a.tif" in bench.the_fault().message
    assert not bench.spec.results.exists() or bench.results() == []


@pytest.mark.parametrize("reason", [Reason.WORKER_CRASHED, Reason.WORKER_DEADLINE])
async def test_a_decoder_that_crashes_or_hangs_is_tried_three_times(
    bench: Bench, hooks: Hooks, reason: Reason
) -> None:
    bench.write()
    hooks.pool += [failing(reason)] * 2
    await bench.process(bench.found())
    assert bench.events()[0].segmentation.state is SegmentationState.SUCCEEDED

    bench.write(pixels=PIXELS.T)
    hooks.pool += [failing(reason)] * 4
    await bench.process(bench.found())
    last = bench.events()[-1].segmentation
    assert last.fault is not None
    assert (last.fault.reason, last.version) == (reason, 2)
    assert "tried 3 times" in last.fault.message
    assert len(hooks.pool) == 1
    assert bench.results() == BOTH, "the results of the content before stay"


async def test_a_file_that_crashed_a_decoder_waits_without_a_slot(bench: Bench, hooks: Hooks) -> None:
    bench.write()
    hooks.pool += [failing(Reason.WORKER_CRASHED)]
    slot = Slot(bench.scheduler, "hot", 0)
    await slot.acquire()
    async with bench.pipeline._suspects:  # as if another such file were tried again
        work = asyncio.create_task(bench.pipeline.process(bench.found(), slot, "cells"))
        async with asyncio.timeout(20), bench.scheduler.slot("another"):
            assert bench.events() == []
    await work
    slot.release()
    assert bench.events()[0].segmentation.state is SegmentationState.SUCCEEDED


async def test_a_share_that_went_away_takes_no_image_with_it(bench: Bench) -> None:
    """Neither failed nor vanished: the image is done when the share is back."""
    bench.write()
    found = bench.found()
    (bench.folder / "hot").rename(bench.folder / "away")
    await bench.process(found)
    assert bench.events() == []
    assert not any(bench.journal.counts("hot").values())
    (bench.folder / "away").rename(bench.folder / "hot")
    await bench.process(found)
    assert bench.events()[0].segmentation.state is SegmentationState.SUCCEEDED


@pytest.mark.parametrize("reason", [Reason.WORKER_MEMORY, Reason.IMAGE_CORRUPT, Reason.IMAGE_NEEDS_EXTRA])
async def test_other_faults_of_decoding_are_final(bench: Bench, hooks: Hooks, reason: Reason) -> None:
    bench.write()
    hooks.pool += [failing(reason)]  # a small file takes one call
    await bench.process(bench.found())
    assert bench.the_fault().reason == reason
    assert bench.results() == []


@pytest.mark.parametrize("reason", [Reason.DISK_FULL, Reason.RESULTS_NOT_WRITABLE])
async def test_a_full_disk_holds_the_watch_and_fails_nothing(
    bench: Bench, hooks: Hooks, reason: Reason
) -> None:
    bench.write()
    hooks.commit += [failing(reason)] * 3
    await bench.process(bench.found())
    (event,) = bench.events()
    assert event.segmentation.state is SegmentationState.SUCCEEDED
    assert bench.held == [f"it is {reason}"] * 3
    assert bench.reason == ""
    assert bench.results() == BOTH


async def test_a_full_disk_of_the_journal_holds_what_is_done(bench: Bench, hooks: Hooks) -> None:
    bench.write()
    hooks.record += [failing(Reason.DISK_FULL)] * 2
    hooks.lane += [lambda: None, lambda: pytest.fail("it was computed again")]
    await bench.process(bench.found())
    assert len(bench.events()) == 1
    assert bench.held == ["it is DISK_FULL"] * 2
    assert bench.reason == ""


async def test_nothing_is_begun_while_the_journal_lives_on_its_reserve(
    bench: Bench, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write()
    answers = [False, False, True]
    monkeypatch.setattr(Journal, "short_of_room", property(lambda self: bool(answers)))
    monkeypatch.setattr(Journal, "regain_room", lambda self: answers.pop(0))
    hooks.pool.append(lambda: answers and pytest.fail("it was begun"))
    bench.while_held = lambda: held_by.append(bench.pipeline.held_by)
    held_by: list[Reason | None] = []
    await bench.process(bench.found())
    assert held_by == [Reason.DISK_FULL] * 2
    assert bench.pipeline.held_by is None
    assert len(bench.events()) == 1


@pytest.mark.parametrize("reason", [Reason.JOURNAL_NOT_WRITABLE, Reason.JOURNAL_DAMAGED])
async def test_a_journal_that_breaks_under_an_image_is_not_the_images_fault(
    bench: Bench, hooks: Hooks, reason: Reason
) -> None:
    bench.write()
    hooks.pool.append(failing(reason))  # as the journal's own calls on the way
    hooks.record.append(lambda: pytest.fail("it was recorded"))
    with pytest.raises(SegmentdError) as error:
        await bench.process(bench.found())
    assert error.value.reason is reason


async def test_a_missing_model_holds_the_watch(bench: Bench) -> None:
    bench.write()
    model = bench.folder / "models" / "cells.segmodel"
    data = model.read_bytes()
    model.unlink()
    bench.while_held = lambda: model.write_bytes(data) and None
    await bench.process(bench.found())
    assert "there is no model 'cells'" in bench.held[0]
    assert len(bench.held) == 1
    assert bench.reason == ""
    assert bench.events()[0].segmentation.state is SegmentationState.SUCCEEDED


async def test_a_file_that_changes_under_our_hands_leaves_no_trace(bench: Bench, hooks: Hooks) -> None:
    path = bench.write()
    found = bench.found()
    hooks.lane.append(lambda: path.write_bytes(path.read_bytes() + b"more") and None)
    await bench.process(found)
    assert bench.events() == []
    assert bench.results() == []
    assert not bench.journal.known("hot", b"a.tif", found.stamp)
    assert not bench.journal.known("hot", b"a.tif", bench.found().stamp)


async def test_a_file_that_changed_before_its_turn_leaves_no_trace(bench: Bench) -> None:
    bench.write()
    found = bench.found()
    bench.write(pixels=PIXELS.T)
    await bench.process(found)
    assert bench.events() == []


async def test_a_file_that_goes_away_is_no_failure_and_may_come_back(bench: Bench, hooks: Hooks) -> None:
    path = bench.write()
    found, away = bench.found(), bench.folder / "away.tif"
    hooks.lane.append(lambda: path.rename(away) and None)
    await bench.process(found)
    assert bench.events() == []
    assert bench.results() == []
    assert bench.journal.counts("hot")[ImageState.VANISHED] == 1
    away.rename(path)
    assert not bench.journal.known("hot", b"a.tif", found.stamp)
    await bench.process(bench.found())
    assert len(bench.events()) == 1


async def test_mistakes_of_ours_fail_the_image_and_tell_subscribers_nothing_internal(
    bench: Bench, hooks: Hooks
) -> None:
    bench.write()

    def fail() -> None:
        raise RuntimeError("secret detail")

    hooks.lane.append(fail)
    await bench.process(bench.found())
    fault = bench.the_fault()
    assert fault.reason == Reason.INTERNAL
    assert "secret" not in fault.message
    assert bench.results() == []


async def test_a_broken_journal_ends_it(bench: Bench, hooks: Hooks) -> None:
    bench.write()
    hooks.record.append(failing(Reason.JOURNAL_NOT_WRITABLE))
    with pytest.raises(SegmentdError) as error:
        await bench.process(bench.found())
    assert error.value.reason is Reason.JOURNAL_NOT_WRITABLE


async def test_an_image_that_waits_is_let_go_when_its_watch_changes(
    bench: Bench, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "HOLD_SECONDS", 3600.0)
    bench.write()
    hooks.commit.append(failing(Reason.RESULTS_NOT_WRITABLE))

    def change() -> None:  # while it waits
        asyncio.get_running_loop().call_soon(bench.pipeline.retire)

    bench.while_held = change
    await bench.process(bench.found())
    assert (len(bench.held), bench.reason, bench.events()) == (1, "", [])
    assert not bench.journal.known("hot", b"a.tif", bench.found().stamp)
