"""Very many small files at once: all are seen soon, all are done, and the daemon stays responsive."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .daemon import DaemonProcess
from .images import write_blobs

pytestmark = pytest.mark.e2e

SEEN_SECONDS = 10.0
DONE_SECONDS = 600.0  # at 60 files/s it takes 170
STATUS_SECONDS = 0.25
MEMORY_MIB = 150


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [80, pytest.param(10_000, marks=pytest.mark.slow)])
def test_small_files_dropped_at_once(place: Callable[..., DaemonProcess], count: int) -> None:
    """Every file is in exactly one place: it waits, is done or has failed."""
    daemon = place(outputs=["labels"])
    source = write_blobs(daemon.folder / "source.tif", 1, (16, 16)).read_bytes()
    with daemon, daemon.client() as client:
        write_blobs(daemon.hot / "first.tif", 2, (16, 16))
        while client.watch("hot").done_count < 1:
            time.sleep(0.05)
        before = memory_mib(daemon.pid)
        drop = daemon.folder / "drop"
        drop.mkdir()
        for number in range(count):
            (drop / f"{number:05}.tif").write_bytes(source)
        began = time.monotonic()
        drop.rename(daemon.hot / "drop")
        latencies, seen, done = [], 0.0, 0
        while done < count + 1:
            asked = time.monotonic()
            watch = client.watch("hot")
            latencies.append(time.monotonic() - asked)
            assert watch.failed_count == 0
            done = watch.done_count
            if not seen and done + watch.waiting_count >= count + 1:
                seen = time.monotonic() - began
            assert time.monotonic() - began < DONE_SECONDS, f"{done} files done"
            time.sleep(0.2)
        assert 0 < seen < SEEN_SECONDS
        assert sorted(latencies)[int(0.99 * len(latencies))] < STATUS_SECONDS
        assert memory_mib(daemon.pid) - before < MEMORY_MIB
        seconds = time.monotonic() - began
        print(f"{count / seconds:.0f} files/s, all seen after {seen:.2f} s")
        server = client.server()
        assert server.last_event_number == count + 1


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
