"""A daemon that has done five images, for all tests that only look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segmentctl import Client, Result

from .daemon import DaemonProcess
from .images import write_blobs, write_truncated
from .wire import Wire, connected

LARGE = (700, 800)  # two blocks
SOURCES = ["1-bad.tif", "2.tif", "3.tif", "4.tif", "5-large.tif"]


@dataclass(frozen=True)
class Scene:
    """The daemon, a client, the bare stubs, and results by source; the first image failed."""

    daemon: DaemonProcess
    client: Client
    wire: Wire
    results: dict[str, Result]

    def name(self, source: str) -> str:
        """Resource name of the segmentation of an image."""
        return self.results[source].segmentation.name

    def in_order(self) -> list[Result]:
        """Results by number."""
        return sorted(self.results.values(), key=lambda result: result.number)


@contextmanager
def played(folder: Path, renamed: Callable[[Path, str, str], Path]) -> Iterator[Scene]:
    """Start a daemon with five models and two watches, and have it do five images."""
    models = folder / "models"
    for path in (models, folder / "another"):
        path.mkdir()
    for identity, name in (
        ("blobs", "blobs"),
        ("spare", "A spare model"),
        ("twin-a", "Twin"),
        ("twin-b", "Twin"),
    ):
        renamed(models, identity, name)
    (models / "broken.segmodel").write_bytes(b"this is no model")
    watches = [
        {"id": "hot", "folder": "hot", "model": "blobs", "settle_seconds": 0.2, "give_up_seconds": 0.3},
        {"id": "another", "folder": "another", "model": "blobs", "min_confidence": 60},
    ]
    daemon = DaemonProcess(folder, models, watches)
    daemon.metrics = {"listen": "127.0.0.1:0"}
    write_truncated(daemon.hot / SOURCES[0])
    for seed, source in enumerate(SOURCES[1:-1]):
        write_blobs(daemon.hot / source, seed)
    write_blobs(daemon.hot / SOURCES[-1], 5, LARGE)
    with daemon, daemon.client() as client, connected(daemon.address) as wire:
        with client.subscribe("hot", start="oldest", timeout=60) as stream:
            results = [next(stream) for _ in SOURCES]
        by_source = {result.segmentation.source_display: result for result in results}
        assert sorted(by_source) == SOURCES
        yield Scene(daemon, client, wire, by_source)
