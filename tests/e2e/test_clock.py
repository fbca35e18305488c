"""A wall clock that jumps: nothing waits longer for it, and order comes from numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from .daemon import DaemonProcess
from .images import write_blobs

pytestmark = pytest.mark.e2e
# Loaded by Python at its start: the clock of the process is off by what stands in a file.
SHIFTED = """
import os, time
real, real_ns = time.time, time.time_ns
def shift():
    with open(os.environ["TEST_CLOCK"]) as file:
        return int(file.read())
time.time = lambda: real() + shift()
time.time_ns = lambda: real_ns() + shift() * 10**9
"""
YEAR = 365 * 86_400
JUMPS = (0, -30 * YEAR, 60 * YEAR, -YEAR, 3600)


@pytest.mark.slow
def test_a_clock_that_jumps_delays_and_disorders_nothing(
    place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    """Also over a restart."""
    daemon, clock = place(), tmp_path / "clock"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SHIFTED)
    clock.write_text("0")
    daemon.environment = {"TEST_CLOCK": str(clock), "PYTHONPATH": with_first(tmp_path / "site")}
    with daemon, daemon.client() as client, client.subscribe("hot", start="oldest", timeout=60) as results:
        times = []
        for number, jump in enumerate(JUMPS, 1):
            set_clock(clock, jump)
            if number == len(JUMPS):
                daemon.stop()
                daemon.start()
            # Moved in with an old date, so that nobody is seen to close it: it has to settle.
            write_blobs(daemon.folder / "image", number).rename(daemon.hot / f"{number}.tif")
            result = next(results)
            assert (result.number, result.segmentation.source_display) == (number, f"{number}.tif")
            assert 0 <= result.segmentation.latency.ToTimedelta().total_seconds() < 30
            times.append(result.segmentation.create_time.seconds)
        assert times[1] < times[0] < times[2], "the daemon did not see the clock jump"
        with client.subscribe("hot", start="oldest", timeout=30) as again:
            assert [next(again).number for _ in JUMPS] == list(range(1, len(JUMPS) + 1))


def set_clock(clock: Path, seconds: int) -> None:
    """Let the clock jump; whoever reads it meanwhile sees the old or the new value."""
    new = clock.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(clock)


def with_first(folder: Path) -> str:
    """Return PYTHONPATH with a folder before the others."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
