"""Stops and crashes: nothing is lost, nothing comes twice, subscribers go on where they were."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentctl import DaemonError, Result
from segmentctl.client import Client

from .daemon import DaemonProcess, wait_until
from .images import blobs, write_blobs

pytestmark = pytest.mark.e2e


class Follower:
    """A subscriber in a thread, which outlives restarts of the daemon."""

    def __init__(self, client: Client) -> None:
        self.results: list[Result] = []
        self.interruptions = 0
        self.error: Exception | None = None
        self._subscription = client.subscribe(
            "hot", start="oldest", timeout=100, on_interruption=self._interrupted
        )
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._subscription.close()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.results) >= count or self.error is not None, f"{count} results", 60)
        assert self.error is None, self.error

    def _follow(self) -> None:
        try:
            for result in self._subscription:
                self.results.append(result)
        except DaemonError as error:
            self.error = error

    def _interrupted(self, error: DaemonError, delay: float) -> None:
        self.interruptions += 1


def fill(hot: Path, count: int, edge: int) -> set[str]:
    """Put a backlog into the folder; return the names."""
    names = {f"{number:03d}.tif" for number in range(count)}
    shapes = [(edge, edge + 10), (edge - 7, edge)]
    for name in names:
        write_blobs(hot / name, int(name[:3]), shapes[int(name[:3]) % 2])
    return names


def assert_all_once(results: list[Result], names: set[str]) -> None:
    """Check that the journal was followed without a gap and every image came once, with its files."""
    assert [result.number for result in results] == list(range(1, len(names) + 1))
    counts = Counter(result.segmentation.source_display for result in results)
    assert counts == dict.fromkeys(names, 1)
    for result in results:
        segmentation = result.segmentation
        assert segmentation.state == segmentation.STATE_SUCCEEDED, result.error
        for kind, pixels in (("labels", result.labels), ("confidence", result.confidence)):
            np.testing.assert_array_equal(tifffile.imread(segmentation.files[kind].local_path), pixels)


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".ome.tif")]


def wait_for_events(daemon: DaemonProcess, count: int) -> int:
    """Wait until the journal has so many events, through a connection that no restart has slowed down."""
    with daemon.client() as client:
        wait_until(lambda: client.server().last_event_number >= count, f"{count} events")
        return client.server().last_event_number


def test_stops_in_a_backlog_lose_nothing(place: Callable[..., DaemonProcess]) -> None:
    """Also: a subscriber with a cursor of a journal that was lost is told so."""
    daemon = place()
    names = fill(daemon.hot, 50, 100)
    with daemon.start(), daemon.client() as client, Follower(client) as follower:
        for events, number in ((2, signal.SIGTERM), (7, signal.SIGINT)):
            wait_for_events(daemon, events)
            daemon.stop(number)
            assert len(list(daemon.results.glob("*.labels.ome.tif"))) < len(names), "there was no backlog"
            assert temporaries(daemon.results) == []
            daemon.start()
        follower.wait_for(len(names))
        assert follower.interruptions > 0
        assert wait_for_events(daemon, len(names)) == len(names)
        assert_all_once(follower.results, names)
        daemon.stop()
    shutil.rmtree(daemon.folder / "journal")
    with daemon.start(), daemon.client() as client:
        with pytest.raises(DaemonError) as refused:
            next(client.subscribe("hot", follower.results[0].cursor))
        assert (refused.value.reason, refused.value.code) == ("CURSOR_UNKNOWN", "FAILED_PRECONDITION")
        with client.subscribe("hot", start="oldest", timeout=60, metadata_only=True) as results:
            assert next(results).number == 1


def kill_again_and_again(daemon: DaemonProcess, kills: int, seed: int) -> None:
    """`kill -9` at random moments of the work on 25 files; then check everything."""
    random = np.random.default_rng(seed)
    names = fill(daemon.hot, 25, 150)
    with daemon.start(), daemon.client() as client, Follower(client) as follower:
        events = 0
        for _ in range(kills):
            events = wait_for_events(daemon, min(events + int(random.integers(0, 50 // kills)), len(names)))
            # Not to wait for anything: the crash shall hit another point of the work each time.
            time.sleep(random.uniform(0, 0.05))
            daemon.kill()
            daemon.start()
        follower.wait_for(len(names))
        assert temporaries(daemon.results) == []
        assert wait_for_events(daemon, len(names)) == len(names)
        assert_all_once(follower.results, names)
        with daemon.client() as other, other.subscribe("hot", start="oldest", timeout=30) as again:
            seen_again = [next(again).segmentation.name for _ in names]
        assert seen_again == [result.segmentation.name for result in follower.results]


def test_crashes_at_any_moment_lose_nothing(place: Callable[..., DaemonProcess]) -> None:
    """Also: what crashes left behind is cleaned up, and what arrives in between is found."""
    daemon = place()
    kill_again_and_again(daemon, kills=2, seed=1)
    (daemon.results / "deep").mkdir()
    left = [daemon.results / ".b.tif.labels.ome.tif.segmentd-0123abcd.part"]
    left.append(daemon.results / "deep" / ".c.tif.labels.ome.tif.segmentd-0123abcd.part")
    for path in left:
        path.write_bytes(b"half a result")
    own = daemon.results / ".mine.part"
    own.write_bytes(b"somebody else's")
    write_blobs(daemon.hot / "late.tif", 2)
    with daemon, daemon.client() as client:
        assert not any(path.exists() for path in left)
        assert own.exists()
        with client.subscribe("hot", f"{client.server().journal_id}-25", timeout=60) as results:
            assert next(results).segmentation.source_display == "late.tif"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_crashes_at_any_moment_lose_nothing(place: Callable[..., DaemonProcess], seed: int) -> None:
    kill_again_and_again(place(), kills=8, seed=seed)


@pytest.mark.slow
def test_a_large_image_in_work_does_not_delay_a_stop(place: Callable[..., DaemonProcess]) -> None:
    """It is finished, or given up and done by the next start; either way it comes once."""
    daemon, edge = place(), 16 * 350
    tifffile.imwrite(daemon.hot / "large.tif", np.tile(blobs(1, (350, 350)), (16, 16)))
    with daemon.start(), daemon.client() as client:
        wait_until(lambda: client.server().planes_in_flight > 0, "the image is in work")
        daemon.stop()
        assert temporaries(daemon.results) == []
        daemon.start()
        with client.subscribe("hot", start="oldest", timeout=100, metadata_only=True) as results:
            assert next(results).segmentation.height == edge
        assert client.server().last_event_number == 1
        assert temporaries(daemon.results) == []
