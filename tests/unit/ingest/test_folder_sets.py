"""OME-TIFF sets in a watched folder: who waits for whom, and what is handed over."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from segmentd.errors import Reason
from segmentd.ingest.folder import FoundFile
from segmentd.records import WatchSpec

from . import ome_sets
from .test_folder import FakeClock, Pipeline, spec, watching

__all__ = ["spec"]


class Sets(Pipeline):
    """Knows, too, the other files of what it took over."""

    async def deliver(self, found: FoundFile) -> None:
        self.journal.update((file.path, file.stamp) for file in found.files)
        self.found.append(found)

    def taken(self) -> list[tuple[bytes, list[bytes], str]]:
        """Take what was handed over: name, names of the parts, reason of the fault."""
        found = [
            (file.relative, [part.path for part in file.parts], file.fault.reason if file.fault else "")
            for file in self.found
        ]
        self.found.clear()
        return found


def names(files: list[Path]) -> list[bytes]:
    return [os.fsencode(file.name) for file in files]


@pytest.fixture
def polled(spec: WatchSpec) -> WatchSpec:
    return replace(spec, settle_seconds=2.0, give_up_seconds=10.0, poll_seconds=1.0)


@pytest.mark.parametrize("companion", [True, False])
@pytest.mark.parametrize("leader_at", [0, 2, 3])
async def test_a_set_is_handed_over_once_all_its_files_are_there(
    polled: WatchSpec, tmp_path: Path, companion: bool, leader_at: int
) -> None:
    clock, pipeline = FakeClock(), Sets()
    leader, *members = ome_sets.write_by_time(
        tmp_path, ome_sets.random_pixels((4, 1, 1, 9, 9)), "a", companion
    )
    order = members.copy()
    order.insert(leader_at, leader)
    async with watching(polled, pipeline, clock) as watch:
        for number, file in enumerate(order, 1):
            assert pipeline.taken() == []
            file.rename(polled.folder / file.name)
            await clock.advance(8)  # slower than is waited for without a change
            assert watch.status.waiting == (number if number < len(order) else 0)
        assert pipeline.taken() == [(os.fsencode(leader.name), names(members), "")]
        await clock.advance(100)
        assert pipeline.taken() == []


async def test_members_without_a_leader_are_given_up_some_time_after_the_last_one(
    polled: WatchSpec, tmp_path: Path
) -> None:
    clock, pipeline = FakeClock(), Sets()
    leader, *members = ome_sets.write_by_time(
        tmp_path, ome_sets.random_pixels((3, 1, 1, 9, 9)), companion=True
    )
    async with watching(polled, pipeline, clock) as watch:
        for file in members:
            file.rename(polled.folder / file.name)
            await clock.advance(9)
        assert watch.status.waiting == 3
        await clock.advance(8)
        assert sorted(pipeline.taken()) == [(name, [], "IMAGE_INCOMPLETE") for name in names(members)]
        leader.rename(polled.folder / leader.name)
        await clock.advance(6)
        assert pipeline.taken() == [(os.fsencode(leader.name), names(members), "")]


async def test_a_set_that_stays_incomplete_is_one_failure_until_its_last_file_comes(
    polled: WatchSpec, tmp_path: Path
) -> None:
    clock, pipeline = FakeClock(), Sets()
    leader, *members = ome_sets.write_by_time(
        tmp_path, ome_sets.random_pixels((3, 1, 1, 9, 9)), companion=True
    )
    async with watching(polled, pipeline, clock) as watch:
        for file in (leader, *members[:2]):
            file.rename(polled.folder / file.name)
        await clock.advance(30)
        assert pipeline.taken() == [(os.fsencode(leader.name), names(members[:2]), "IMAGE_INCOMPLETE")]
        assert watch.status.waiting == 0
        members[2].rename(polled.folder / members[2].name)
        await clock.advance(6)
        assert pipeline.taken() == [(os.fsencode(leader.name), names(members), "")]
        os.utime(polled.folder / members[0].name, ns=(5, 5))  # a member that changes makes the image new
        await clock.advance(6)
        [found] = pipeline.found
        assert found.relative == os.fsencode(leader.name)
        assert found.parts[0].stamp.mtime_ns == 5


async def test_a_leader_that_cannot_be_read_takes_its_members_with_it(
    polled: WatchSpec, tmp_path: Path
) -> None:
    clock, pipeline = FakeClock(), Sets()
    leader, *members = ome_sets.write_by_time(
        polled.folder, ome_sets.random_pixels((2, 1, 1, 9, 9)), companion=True
    )
    leader.write_text("<OME><a></b>")
    async with watching(polled, pipeline, clock):
        await clock.advance(30)
        assert pipeline.taken() == [(os.fsencode(leader.name), names(members), "IMAGE_CORRUPT")]


async def test_a_leader_that_is_left_out_or_does_not_know_a_member_is_a_fault_of_that(
    polled: WatchSpec, tmp_path: Path
) -> None:
    clock, pipeline = FakeClock(), Sets()
    files = ome_sets.write_by_time(polled.folder, ome_sets.random_pixels((2, 1, 1, 9, 9)), companion=True)
    stranger = ome_sets.binary_only("b.ome.tif", files[0].name)
    ome_sets.write_member(polled.folder / "b.ome.tif", ome_sets.random_pixels((1, 9, 9)), stranger)
    async with watching(polled, pipeline, clock):
        await clock.advance(30)
        assert sorted(pipeline.taken()) == [
            (b"a.companion.ome", names(files[1:]), ""),
            (b"b.ome.tif", [], "IMAGE_UNSUPPORTED"),
        ]
    pipeline = Sets()
    async with watching(replace(polled, include=("*_T*.tif",)), pipeline, clock):
        await clock.advance(30)
        assert {file.relative for file in pipeline.found} == set(names(files[1:]))
        for file in pipeline.found:
            assert file.fault is not None
            assert file.fault.reason == Reason.IMAGE_UNSUPPORTED
            assert "let its `include` match that" in file.fault.message


async def test_files_that_the_watch_leaves_out_are_no_parts(polled: WatchSpec) -> None:
    clock, pipeline = FakeClock(), Sets()
    files = ome_sets.write_by_time(polled.folder, ome_sets.random_pixels((3, 1, 1, 9, 9)))
    async with watching(replace(polled, include=("*_T0*", "*_T1*")), pipeline, clock):
        await clock.advance(30)
        assert pipeline.taken() == [(os.fsencode(files[0].name), names(files[1:2]), "")]


async def test_members_wait_on_for_a_leader_that_went_away(polled: WatchSpec, tmp_path: Path) -> None:
    clock, pipeline = FakeClock(), Sets()
    leader, member, last = ome_sets.write_by_time(
        tmp_path, ome_sets.random_pixels((2, 1, 1, 9, 9)), companion=True
    )
    async with watching(polled, pipeline, clock) as watch:
        for file in (leader, member):
            file.rename(polled.folder / file.name)
        await clock.advance(5)
        (polled.folder / leader.name).rename(leader)
        await clock.advance(9)
        assert (pipeline.taken(), watch.status.waiting) == ([], 1)
        for file in (leader, last):
            file.rename(polled.folder / file.name)
        await clock.advance(20)
        assert pipeline.taken() == [(os.fsencode(leader.name), names([member, last]), "")]
