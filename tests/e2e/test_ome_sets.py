"""OME-TIFF sets in a watched folder: members in any order, rewritten, renamed, moved, after a restart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segmentctl import Result
from segmentctl.client import Client

from ..unit.ingest import ome_sets
from .daemon import DaemonProcess, run, run_here, wait_until
from .images import SHAPE, blobs

pytestmark = pytest.mark.e2e


def stack(seed: int, times: int = 3) -> npt.NDArray[Any]:
    """Planes (T, C, Z, Y, X) of one channel and two Z."""
    planes = [blobs(10 * seed + number, SHAPE) for number in range(2 * times)]
    return np.stack(planes).reshape(times, 1, 2, *SHAPE)


def write_set(folder: Path, seed: int, stem: str, companion: bool) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return ome_sets.write_by_time(folder, stack(seed), stem, companion)


def events(client: Client, count: int) -> list[tuple[str, str, int]]:
    """How images ended, by name and version, without their planes."""
    with client.subscribe("hot", start="oldest", timeout=60, metadata_only=True) as stream:
        found: list[Result] = []
        while len(told(found)) < count:
            found.append(next(stream))
    return told(found)


def told(found: list[Result]) -> list[tuple[str, str, int]]:
    records = [result.segmentation for result in found]
    ends = [
        (record.State.Name(record.state)[6:], record.source_display, record.version) for record in records
    ]
    return list(dict.fromkeys(ends))


def counts(client: Client) -> tuple[int, int, int, int, int]:
    watch = client.watch("hot")
    return watch.done_count, watch.failed_count, watch.part_count, watch.ignored_count, watch.waiting_count


def labels(daemon: DaemonProcess, name: str) -> npt.NDArray[Any]:
    return tifffile.imread(daemon.results / f"{name}.labels.ome.tif")


def test_a_set_is_one_image_however_its_files_come(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon = place(give_up_seconds=3.0)
    single = tmp_path / "single.ome.tif"
    tifffile.imwrite(single, stack(1), metadata={"axes": "TCZYX"}, photometric="minisblack")
    with daemon.start(), daemon.client() as client:
        # The leader comes last; then first, with its members one after the other.
        leader, *members = write_set(tmp_path / "last", 1, "last", companion=True)
        for file in (*members, leader):
            shutil.copy(file, daemon.hot)
            wait_until(lambda: sum(counts(client)) > 0, "the file is seen")
        shutil.copy(single, daemon.hot)
        assert sorted(events(client, 2)) == [
            ("SUCCEEDED", "last.companion.ome", 1),
            ("SUCCEEDED", "single.ome.tif", 1),
        ]
        np.testing.assert_array_equal(labels(daemon, leader.name), labels(daemon, single.name))
        assert labels(daemon, leader.name).shape == (3, 2, *SHAPE)
        files = write_set(tmp_path / "first", 2, "first", companion=False)
        for number, file in enumerate(files, 1):
            shutil.copy(file, daemon.hot)
            if number < len(files):
                wait_until(lambda seen=number: counts(client)[4] == seen, "the files wait")
        assert events(client, 3)[2:] == [("SUCCEEDED", "first_T0.ome.tif", 1)]
        wait_until(lambda: counts(client) == (3, 0, 5, 0, 0), "every file is counted once")

        # A member that changes makes the image new; the same content does not.
        changed = write_set(tmp_path / "changed", 3, "first", companion=False)[2]
        shutil.copy(changed, daemon.hot)
        assert events(client, 4)[3:] == [("SUCCEEDED", "first_T0.ome.tif", 2)]
        wait_until(lambda: counts(client) == (3, 0, 5, 0, 0), "every file is counted once")
        assert "parts" in run("--address", daemon.address, "status", module="segmentctl").stdout


@pytest.mark.slow
def test_a_set_stays_one_image_through_restarts_renames_and_a_lost_journal(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon = place()
    single = tmp_path / "single.ome.tif"
    tifffile.imwrite(single, stack(1), metadata={"axes": "TCZYX"}, photometric="minisblack")
    leader, *members = write_set(daemon.hot, 1, "last", companion=True)
    with daemon.start(), daemon.client() as client:
        assert events(client, 1) == [("SUCCEEDED", leader.name, 1)]
        (daemon.hot / members[1].name).touch()
        daemon.stop()
        daemon.start()
        shutil.copy(single, daemon.hot / "again.ome.tif")
        assert events(client, 2)[1:] == [("SUCCEEDED", "again.ome.tif", 1)]
        wait_until(lambda: counts(client) == (2, 0, 3, 0, 0), "every file is counted once")

        # A leader that is renamed is the same image; its members are part of the renamed one.
        (daemon.hot / leader.name).rename(daemon.hot / "moved.companion.ome")
        assert events(client, 3)[2:] == [("RENAMED", "moved.companion.ome", 1)]
        wait_until(lambda: counts(client) == (2, 0, 3, 0, 0), "every file is counted once")
        daemon.stop()

        # Results, and which files are parts, are found again without the journal.
        run_here("rebuild-journal", "--config", daemon.write_config(), "--force")
        daemon.start()
        shutil.copy(single, daemon.hot / "third.ome.tif")
        # The results of the image that was renamed are still there under its old name, too.
        wait_until(lambda: counts(client) == (4, 0, 3, 0, 0), "every file is counted once")
        assert {state for state, *_ in events(client, 4)} == {"SUCCEEDED"}


@pytest.mark.slow
def test_members_without_a_leader_fail_and_are_mended_by_it_and_moved(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon = place(give_up_seconds=0.6, after=f"move:{tmp_path / 'done'}")
    leader, *members = write_set(tmp_path / "set", 1, "a", companion=True)
    for file in members[:2]:
        shutil.copy(file, daemon.hot)
    with daemon.start(), daemon.client() as client:
        with client.subscribe("hot", start="oldest", timeout=60) as stream:
            first = next(stream)
        assert first.error is not None and first.error.reason == "IMAGE_INCOMPLETE"
        assert "it is part of the set of a.companion.ome, which is not there" in first.error.message
        wait_until(lambda: counts(client) == (0, 2, 0, 0, 0), "both have failed")
        shutil.copy(leader, daemon.hot)
        assert events(client, 3)[2:] == [("FAILED", leader.name, 1)]
        wait_until(
            lambda: counts(client) == (0, 1, 2, 0, 0), "the leader has failed, for a member is missing"
        )
        shutil.copy(members[2], daemon.hot)
        assert events(client, 4)[3:] == [("SUCCEEDED", leader.name, 2)]
        wait_until(lambda: not any(daemon.hot.glob("a*")), "all files are moved")
        assert sorted(path.name for path in (tmp_path / "done").iterdir()) == sorted(
            file.name for file in (leader, *members)
        )
        assert counts(client) == (1, 0, 3, 0, 0)
