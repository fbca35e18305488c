"""Following a daemon over its restarts, and what must be true at the end."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import zarr
from pylibCZIrw import czi

from segmentctl import DaemonError, Result
from segmentctl.client import Client

from .daemon import DaemonProcess, wait_until
from .images import Pixels, write_blobs

RESULT = re.compile(r"\.ome\.tif$|\.czi$|\.ome\.zarr/")


def read_czi(path: str | Path) -> Pixels:
    """Read the only plane of a result, or of its first scene."""
    with czi.open_czi(str(path)) as opened:
        return np.asarray(opened.read(scene=0)[..., 0])


READ: dict[str, Callable[[str], Pixels]] = {
    "ome-tiff": tifffile.imread,
    "ome-zarr": lambda path: np.asarray(zarr.open_group(path, mode="r")["0"]),
    "czi": read_czi,
}
"""How other programs read the labels of an image of one plane, by the format of results."""


class Follower:
    """A subscriber in a thread, which outlives restarts of the daemon."""

    def __init__(self, client: Client, parent: str = "hot", seconds: float = 100.0) -> None:
        self.results: list[Result] = []
        self.interruptions = 0
        self.error: Exception | None = None
        self._subscription = client.subscribe(
            parent, start="oldest", timeout=seconds, on_interruption=self._interrupted
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
    """Find what is in a results folder and is no result."""
    return [
        path
        for path in folder.rglob("*")
        if path.name.startswith(".") or not (path.is_dir() or RESULT.search(str(path)))
    ]


def wait_for_events(daemon: DaemonProcess, count: int) -> int:
    """Wait until the journal has so many events, through a connection that no restart has slowed down."""
    with daemon.client() as client:
        wait_until(lambda: client.server().last_event_number >= count, f"{count} events")
        return client.server().last_event_number
