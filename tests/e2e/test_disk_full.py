"""Disks that are full or read-only: work waits, says so, and goes on by itself when there is room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segmentctl import Client
from segmentd.v1.watch_service_pb2 import Watch

from .daemon import DaemonProcess, wait_until
from .following import assert_all_once, fill, wait_for_events
from .images import write_blobs
from .mounts import fill_up, mount_for, remount, seen_by

pytestmark = pytest.mark.e2e


def stands_still(client: Client, watch: str) -> bool:
    return client.watch(watch).state == Watch.STATE_FAILED


@pytest.mark.parametrize(
    ("container", "ending"), [("ome-tiff", "ome.tif"), pytest.param("czi", "czi", marks=pytest.mark.slow)]
)
def test_full_and_read_only_disks_of_results(
    blobs_model: Path, tmp_path: Path, container: str, ending: str
) -> None:
    watches: list[dict[str, Any]] = [
        {
            "id": name,
            "folder": name,
            "model": "blobs",
            "results": f"{name}-results",
            "results_format": container,
            "settle_seconds": 0.2,
        }
        for name in ("full", "fixed", "well")
    ]
    daemon = DaemonProcess(tmp_path, blobs_model.parent, watches)
    full, fixed = tmp_path / "full-results", tmp_path / "fixed-results"
    mount_for(daemon, {full: "size=1m", fixed: "size=1m,ro"})
    names = [f"{number}.tif" for number in range(3)]
    for watch in ("full", "fixed", "well"):
        (tmp_path / watch).mkdir()
    with daemon, daemon.client() as client:
        ballast = fill_up(seen_by(daemon, full))
        for name in names:
            for seed, watch in enumerate(("full", "fixed", "well")):
                write_blobs(tmp_path / watch / name, seed)
        wait_until(lambda: client.watch("well").done_count == len(names), "the third watch goes on")
        for watch in ("full", "fixed"):
            wait_until(lambda watch=watch: stands_still(client, watch), f"{watch} says that it waits")
            about = client.watch(watch)
            assert f"{watch}-results" in about.state_reason
            assert (about.done_count, about.failed_count, about.waiting_count) == (0, 0, len(names))
        seen = seen_by(daemon, full)
        wait_until(lambda: [path.name for path in seen.iterdir()] == ["ballast"], "nothing half is left")

        ballast.unlink()
        remount(daemon, fixed, "rw")
        for watch in ("full", "fixed"):
            with client.subscribe(watch, start="oldest", timeout=60) as results:
                got = [next(results) for _ in names]
            assert sorted(result.segmentation.source_display for result in got) == names
            assert all(result.labels is not None for result in got)
            wait_until(lambda watch=watch: not stands_still(client, watch), f"{watch} is well")
            files = {path.name for path in seen_by(daemon, tmp_path / f"{watch}-results").iterdir()}
            assert files == {f"{name}.{kind}.{ending}" for name in names for kind in ("labels", "confidence")}
        assert client.server().last_event_number == 3 * len(names)


@pytest.mark.slow
def test_a_full_disk_of_the_journal(place: Callable[..., DaemonProcess]) -> None:
    daemon = place()
    journal = daemon.folder / "journal"
    mount_for(daemon, {journal: "size=20m"})
    with daemon.start(), daemon.client() as client:
        names = fill(daemon.hot, 3, 80)
        assert wait_for_events(daemon, len(names)) == len(names)
        ballast = fill_up(seen_by(daemon, journal))
        names |= {write_blobs(daemon.hot / f"later-{seed}.tif", seed).name for seed in range(20)}
        wait_until(lambda: stands_still(client, "hot"), "the watch says that it waits")
        assert "the journal" in client.watch("hot").state_reason
        told = client.server().last_event_number
        assert told < len(names)
        assert client.watch("hot").failed_count == 0
        with client.subscribe("hot", start="oldest", timeout=30, metadata_only=True) as results:
            assert [next(results).number for _ in range(told)] == list(range(1, told + 1))

        ballast.unlink()
        with client.subscribe("hot", start="oldest", timeout=60) as results:
            assert_all_once([next(results) for _ in names], names)
        wait_until(lambda: not stands_still(client, "hot"), "the watch is well")
        assert client.server().last_event_number == len(names)
