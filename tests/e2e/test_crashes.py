"""`kill -9` at random moments and at every named point: nothing is lost, nothing comes twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from segmentctl import Result
from segmentd.crashpoints import POINTS, VARIABLE
from segmentd.v1.segmentation_service_pb2 import Segmentation

from .daemon import DaemonProcess, wait_until
from .following import READ, Follower, temporaries, wait_for_events
from .images import write_blobs

pytestmark = pytest.mark.e2e
CRASH_SECONDS = 60.0
MOVING = ("before-move", "moved")  # points that only a watch with `after = "move:DIR"` passes
RENAMING = "result-linked"  # only when a file that is done was renamed
CHANGING = "result-put-aside"  # only when a result that is a folder is replaced
OF_FOLDERS = ("result-written", "result-synced", CHANGING, "result-half-renamed", RENAMING)
OF_WORKERS = ("computed", "result-written", "result-synced")


class Crashing:
    """A daemon with a watch that leaves images where they are and one that moves them, and their files."""

    def __init__(self, folder: Path, models: Path, container: str) -> None:
        self.container = container
        watches = [
            {
                "id": name,
                "folder": name,
                "model": "blobs",
                "settle_seconds": 0.3,
                "results_format": container,
            }
            for name in ("hot", "moving")
        ]
        watches[1]["after"] = f"move:{folder / 'archive'}"
        self.daemon = DaemonProcess(folder, models, watches)
        self.names: set[str] = set()
        self.renamed: set[str] = set()
        self.changed: set[str] = set()
        self.archived: set[str] = set()
        (folder / "moving").mkdir()

    def add(self, count: int) -> None:
        """Put in more files."""
        for _ in range(count):
            self._write("hot")

    def give_reason(self, point: str, results: Sequence[Result]) -> None:
        """Do what leads to a point."""
        self.add(1)
        if point in MOVING:
            self.archived.add(self._write("moving"))
        names = [each.segmentation.source_display for each in results]
        if point == RENAMING:
            done = next(name for name in names if name not in self.changed)
            name = f"was-{done}"
            (self.daemon.hot / done).rename(self.daemon.hot / name)
            self.renamed.add(name)

        if point == CHANGING:
            write_blobs(self.daemon.hot / names[0], 1000)
            self.changed.add(names[0])

    def crash_at(self, point: str) -> None:
        """Start the daemon, which must end at the point."""
        self.daemon.environment[VARIABLE] = point
        self.daemon.launch()
        ended = self.daemon.wait_for_exit(CRASH_SECONDS)
        assert ended == -signal.SIGKILL, f"{point}\n{self.daemon.log_end()}"
        del self.daemon.environment[VARIABLE]

    def check(self, results: list[Result]) -> None:
        """Check that every image came once, and every file is where it should be."""
        assert [result.number for result in results] == list(range(1, len(results) + 1))
        by_state = Counter((each.segmentation.state, each.segmentation.source_display) for each in results)
        succeeded = {(Segmentation.STATE_SUCCEEDED, name) for name in self.names}
        renamed = {(Segmentation.STATE_RENAMED, name) for name in self.renamed}
        changed = {(Segmentation.STATE_SUCCEEDED, name) for name in self.changed}
        assert by_state == dict.fromkeys(succeeded | renamed, 1) | dict.fromkeys(changed, 2)
        for result in results:
            files = result.segmentation.files
            if result.segmentation.version == 1 and result.segmentation.source_display in self.changed:
                continue  # its files are those of the next version
            for kind, pixels in (("labels", result.labels), ("confidence", result.confidence)):
                if result.segmentation.state == Segmentation.STATE_SUCCEEDED:
                    np.testing.assert_array_equal(READ[self.container](files[kind].local_path), pixels)
        archive, moving = self.daemon.folder / "archive", self.daemon.folder / "moving"
        wait_until(lambda: not list(moving.glob("*.tif")), "all is moved")
        assert {path.name for path in archive.rglob("*") if path.is_file()} == self.archived
        for folder in (self.daemon.results, moving / "segmented"):
            assert temporaries(folder) == []

    def _write(self, folder: str) -> str:
        name = f"{len(self.names):03d}.tif"
        write_blobs(self.daemon.folder / folder / name, len(self.names), (70, 80))
        self.names.add(name)
        return name


def crash_again_and_again(
    folder: Path, models: Path, files: int, kills: int, points: Sequence[str], container: str = "ome-tiff"
) -> None:
    """Kill at random moments, then at points; files come in all the time, and a subscriber follows."""
    random, crashing = np.random.default_rng(files), Crashing(folder, models, container)
    daemon, at_once = crashing.daemon, files // (2 * kills)
    crashing.add(files - kills * at_once - len(points))
    with daemon.start(), daemon.client() as client, Follower(client, "-", 1500) as follower:
        events = 0
        for _ in range(kills):
            # At the end of a backlog there are no more events to wait for.
            events = wait_for_events(daemon, min(events + int(random.integers(0, 9)), len(crashing.names)))
            # Not to wait for anything: the crash shall hit another point of the work each time.
            time.sleep(random.uniform(0, 0.05))
            daemon.kill()
            crashing.add(at_once)
            daemon.start()
        follower.wait_for(len(crashing.names) // 2)
        daemon.kill()
        for point in points:
            crashing.give_reason(point, follower.results)
            crashing.crash_at(point)
        left = daemon.results / "deep" / ".c.tif.labels.ome.tif.segmentd-0123abcd.part"
        left.parent.mkdir()
        if container == "ome-zarr":
            (left / "0").mkdir(parents=True)
        else:
            left.write_bytes(b"half a result")
        daemon.start()
        count = len(crashing.names) + len(crashing.renamed) + len(crashing.changed)
        follower.wait_for(count)
        assert follower.interruptions > 0
        assert not left.exists()
        crashing.check(follower.results)
        assert wait_for_events(daemon, count) == count
        with daemon.client() as other, other.subscribe("-", start="oldest", timeout=60) as again:
            seen_again = [next(again).segmentation.name for _ in range(count)]
        assert seen_again == [result.segmentation.name for result in follower.results]


def test_crashes_lose_nothing(blobs_model: Path, tmp_path: Path) -> None:
    crash_again_and_again(tmp_path, blobs_model.parent, 24, 1, ["after-commit"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_crashes_at_25_moments_and_at_every_point_lose_nothing(blobs_model: Path, tmp_path: Path) -> None:
    points = [point for point in POINTS if point != CHANGING]
    crash_again_and_again(tmp_path, blobs_model.parent, 200, 25, points)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("container", "points"),
    [("ome-zarr", OF_FOLDERS), ("czi", OF_WORKERS)],
)
def test_crashes_while_results_are_written_lose_nothing_in_other_formats(
    blobs_model: Path, tmp_path: Path, container: str, points: Sequence[str]
) -> None:
    crash_again_and_again(tmp_path, blobs_model.parent, 16, 1, points, container)
