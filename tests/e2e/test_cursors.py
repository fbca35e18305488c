"""Cursors: too old ones, heartbeats, and journals that are damaged or of another version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from segmentctl import DaemonError
from segmentd.v1 import segmentation_service_pb2 as pb

from .daemon import DaemonProcess, wait_until
from .following import fill, wait_for_events
from .images import write_blobs
from .wire import connected, refusal

pytestmark = pytest.mark.e2e


@pytest.mark.slow
def test_a_cursor_that_is_too_old_is_told_where_to_go_on(place: Callable[..., DaemonProcess]) -> None:
    daemon, count, kept = place(), 8, 3
    with daemon, daemon.client() as client:
        fill(daemon.hot, count, 60)
        wait_for_events(daemon, count)
        identity = client.server().journal_id
        daemon.stop()
    daemon.journal["retention_events"] = kept
    with daemon.start(), daemon.client() as client, connected(daemon.address) as wire:
        oldest = f"{identity}-{count - kept}"
        wait_until(lambda: client.server().oldest_cursor == oldest, "the oldest events are deleted")
        request = pb.SubscribeSegmentationsRequest(
            parent="watches/-", cursor=f"{identity}-{count - kept - 1}"
        )
        refused = refusal(lambda: wire.segmentations.SubscribeSegmentations(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
        with pytest.raises(DaemonError) as expired:
            next(client.subscribe("hot", f"{identity}-0", timeout=30))
        assert expired.value.metadata["oldest_cursor"] == oldest
        for place_to_start in ({"cursor": oldest}, {"start": "oldest"}):
            with client.subscribe("hot", timeout=30, **place_to_start) as results:
                assert [next(results).number for _ in range(kept)] == [6, 7, 8]
        write_blobs(daemon.hot / "new.tif", 1)
        with client.subscribe("hot", f"{identity}-{count}", timeout=30) as results:
            assert next(results).number == count + 1
        assert client.watch("hot").done_count == count + 1


@pytest.mark.slow
def test_bad_journals_are_refused_and_stay_as_they_are(place: Callable[..., DaemonProcess]) -> None:
    """Damaged, empty, or of a later version: the daemon names the file and does not begin a new one."""
    daemon = place()
    with daemon:
        fill(daemon.hot, 3, 60)
        wait_for_events(daemon, 3)
        daemon.stop()
    path = daemon.folder / "journal" / "journal.sqlite"
    good = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1000")
    assert_refused(daemon, path, "newer")
    for bad in (b"", good[:4096] + b"\xa5" * 4096 + good[8192:]):
        path.write_bytes(bad)
        assert_refused(daemon, path, "damaged")
        assert path.read_bytes() == bad
    path.write_bytes(good)
    with daemon.start(), daemon.client() as client:
        assert client.server().last_event_number == 3


def assert_refused(daemon: DaemonProcess, path: Path, why: str) -> None:
    """Check that the daemon does not start, and says which file is wrong and what to do."""
    daemon.launch()
    assert daemon.wait_for_exit(30) == 1
    said = daemon.log_end()
    assert str(path) in said
    assert why in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_heartbeats_carry_the_cursor(blobs_model: Path, tmp_path: Path) -> None:
    """A subscriber of a quiet watch gets past the events of others, so that its cursor does not expire."""
    watches: list[dict[str, Any]] = [
        {"id": name, "folder": name, "model": "blobs", "settle_seconds": 0.2} for name in ("quiet", "busy")
    ]
    for name in ("quiet", "busy"):
        (tmp_path / name).mkdir()
    with DaemonProcess(tmp_path, blobs_model.parent, watches) as daemon, connected(daemon.address) as wire:
        request = pb.SubscribeSegmentationsRequest(parent="watches/quiet")
        parts = wire.segmentations.SubscribeSegmentations(request, timeout=60)
        identity, _, number = next(parts).cursor.rpartition("-")
        assert number == "0"
        fill(tmp_path / "busy", 3, 60)
        wait_for_events(daemon, 3)
        part = next(parts)
        assert part.WhichOneof("part") is None
        assert part.cursor == f"{identity}-3"
        parts.cancel()
