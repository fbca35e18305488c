"""Files that are replaced, renamed and deleted while they are worked on, or while the daemon is down."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segmentctl import Client, Result

from .daemon import DaemonProcess, wait_until
from .following import Follower, temporaries
from .images import Pixels, blobs, write_blobs

pytestmark = pytest.mark.e2e
SHAPES = ((300, 400), (260, 410), (330, 350))


class Folder:
    """A watched folder, and every content that a file in it ever had, by digest."""

    def __init__(self, hot: Path) -> None:
        self.hot = hot
        self.contents: dict[str, int] = {}

    def pixels(self, number: int) -> Pixels:
        return blobs(number, SHAPES[number % 3])

    def write(self, name: str) -> None:
        """Write new content: beside what is there and renamed over it, instead of it, or into it."""
        number, path = len(self.contents), self.hot / name
        new = write_blobs(self.hot / f"{name}.part", number, SHAPES[number % 3])
        self.contents[digest(new)] = number
        if number % 3 == 0:
            new.replace(path)
            return
        if number % 3 == 1:
            path.unlink(missing_ok=True)
        path.write_bytes(new.read_bytes())
        new.unlink()

    def disturb(self, name: str, how: int) -> None:
        """Replace, rename or delete a file, if it is still there."""
        path = self.hot / name
        if not path.exists():
            return
        if how == 0:
            self.write(name)
        elif how == 1:
            path.rename(self.hot / f"was-{name}")
        else:
            path.unlink()

    def now(self) -> dict[str, str]:
        """Names and digests of what is there."""
        return {path.name: digest(path) for path in self.hot.glob("*.tif")}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_published(results: list[Result], there: dict[str, str]) -> bool:
    """Whether the last result of each file is of what it is now; a renamed one may have had its before."""
    last = {each.segmentation.source_display: each.segmentation.content_digest for each in results}
    ever = {each.segmentation.content_digest for each in results}
    return all(
        content in ever if name.startswith("was-") else last.get(name) == content
        for name, content in there.items()
    )


def assert_no_mixtures(folder: Folder, results: list[Result], client: Client) -> None:
    """Check that each result is of one content as it was written, and that none came twice."""
    assert [result.number for result in results] == list(range(1, len(results) + 1))
    for result in results:
        segmentation = result.segmentation
        if segmentation.state == segmentation.STATE_RENAMED:
            continue
        assert segmentation.state == segmentation.STATE_SUCCEEDED, result.error
        pixels = folder.pixels(folder.contents[segmentation.content_digest])
        assert (segmentation.height, segmentation.width) == pixels.shape
        if result.labels is not None:  # its files were not yet those of the next version
            np.testing.assert_array_equal(result.labels, client.segment(pixels, "blobs")[0])
    seen = [(each.segmentation.source_display, each.segmentation.content_digest) for each in results]
    assert len(set(seen)) == len(seen)
    assert temporaries(folder.hot / "segmented") == []


def change_while_worked_on(folder: Folder, names: list[str], seed: int) -> None:
    """Change files at random moments, one and a half times as often as there are files."""
    random = np.random.default_rng(seed)
    for name in names:
        folder.write(name)
    for _ in range(3 * len(names) // 2):
        folder.disturb(str(random.choice(names)), int(random.integers(0, 3)))
        # Not to wait for anything: each change shall meet the work at another point.
        time.sleep(random.uniform(0, 0.04))


def change_while_down(folder: Folder, names: list[str]) -> set[str]:
    """Replace, rename, delete and touch a file, and add one; return what must be done, under its name."""
    there = sorted(set(folder.now()) & set(names))
    for how, name in enumerate(there[:3]):
        folder.disturb(name, how)
    os.utime(folder.hot / there[3])
    folder.write("new.tif")
    return {there[0], "new.tif"}


def test_files_that_change_while_they_are_worked_on(place: Callable[..., DaemonProcess]) -> None:
    daemon = place()
    folder = Folder(daemon.hot)
    with daemon, daemon.client() as client, Follower(client) as follower:
        change_while_worked_on(folder, [f"{number:02d}.tif" for number in range(10)], 1)
        wait_until(lambda: is_published(follower.results, folder.now()), "all is done", 60)
        assert client.watch("hot").failed_count == 0
        assert_no_mixtures(folder, follower.results, client)


@pytest.mark.slow
def test_many_files_that_change_also_while_the_daemon_is_down(place: Callable[..., DaemonProcess]) -> None:
    daemon = place()
    folder, names = Folder(daemon.hot), [f"{number:02d}.tif" for number in range(40)]
    with daemon, daemon.client() as client, Follower(client) as follower:
        change_while_worked_on(folder, names, 2)
        wait_until(lambda: is_published(follower.results, folder.now()), "all is done", 60)
        daemon.stop()
        before = len(follower.results)
        must = change_while_down(folder, names)
        daemon.start()
        wait_until(lambda: is_published(follower.results, folder.now()), "what changed meanwhile is done", 60)
        added = {each.segmentation.source_display for each in follower.results[before:]}
        # A renamed one is told of, and done only if it was not done before.
        assert must == {name for name in added if not name.startswith("was-")}
        assert client.watch("hot").failed_count == 0
        assert_no_mixtures(folder, follower.results, client)
