"""Thousands of files: nothing lost, nothing twice, memory and descriptors as at the beginning."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from segmentctl import Client, Result

from .daemon import DaemonProcess, wait_until
from .images import write_blobs
from .process import descriptors, resident_mib, threads

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]
IMAGES = 20
SHAPE = (48, 64)


def write_images(folder: Path) -> list[Path]:
    """Write a few small images, to be copied again and again."""
    return [write_blobs(folder / f"image-{seed}", seed, SHAPE) for seed in range(IMAGES)]


def assert_each_once(results: list[Result], count: int) -> None:
    """Check that all images are done, each once, numbered on without a gap."""
    first = results[0].number
    assert [result.number for result in results] == list(range(first, first + count))
    assert len({result.segmentation.source for result in results}) == count
    assert {result.segmentation.state for result in results} == {results[0].segmentation.STATE_SUCCEEDED}


def test_memory_descriptors_and_threads_stay_as_they_are(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon, images, count, portion = place(), write_images(tmp_path), 3000, 100
    memory: list[float] = []
    with (
        daemon,
        daemon.client() as client,
        client.subscribe("hot", start="oldest", timeout=300, metadata_only=True) as results,
    ):
        got: list[Result] = []
        for start in range(0, count, portion):
            for number in range(start, start + portion):
                shutil.copyfile(images[number % IMAGES], daemon.hot / f"{number:05d}.tif")
            got += islice(results, portion)
            memory.append(resident_mib(daemon.pid))
            if start == 500:
                before = descriptors(daemon.pid), threads(daemon.pid)
        assert_each_once(got, count)
        after = descriptors(daemon.pid), threads(daemon.pid)
    assert after[0] <= before[0] + 3
    assert after[1] <= before[1] + 3
    settled = np.array(memory[len(memory) // 3 :])
    slope = np.polynomial.polynomial.polyfit(np.arange(settled.size) * portion, settled, 1)[1]
    assert slope * 1024 < 5, f"KiB a file; MiB: {memory}"


class Asking:
    """Asks for the daemon's status all the time, and keeps how long the answers took."""

    def __init__(self, client: Client) -> None:
        self.seconds: list[float] = []
        self._client = client
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._end.wait(0.1):
            began = time.monotonic()
            self._client.server()
            self._client.watch("hot")
            self.seconds.append(time.monotonic() - began)


def test_ten_thousand_files_at_once(place: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    """They are moved in together; the limits are far above what is measured on an idle machine."""
    daemon, count, images = place(), 10_000, write_images(tmp_path)
    folder = tmp_path / "burst"
    folder.mkdir()
    for number in range(count):
        shutil.copyfile(images[number % IMAGES], folder / f"{number:05d}.tif")
    with daemon, daemon.client() as client, Client(daemon.address, timeout=10.0) as other:
        write_blobs(daemon.hot / "first.tif", 1)
        wait_until(lambda: client.server().last_event_number == 1, "the first image is done")
        memory = resident_mib(daemon.pid)
        with (
            Asking(other) as asking,
            client.subscribe(
                "hot", f"{client.server().journal_id}-1", timeout=500, metadata_only=True
            ) as results,
        ):
            folder.rename(daemon.hot / "burst")
            got = list(islice(results, count))
        assert len(got) == count, client.watch("hot")
        assert_each_once(got, count)
        assert resident_mib(daemon.pid) - memory < 150
        watch = client.watch("hot")
        assert (watch.done_count, watch.failed_count, watch.waiting_count) == (count + 1, 0, 0)
        assert client.server().last_event_number == count + 1
    assert len(asking.seconds) > 100
    assert np.percentile(asking.seconds, 99) < 2.0
    print(f"answers: p99 {np.percentile(asking.seconds, 99):.3f} s")
