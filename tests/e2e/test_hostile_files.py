"""Hundreds of odd and hostile files: each ends as it should, and nothing else suffers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segmentctl import Result

from .daemon import DaemonProcess, wait_until
from .hostile import DONE, IGNORED, Odd, odd_files, special_files
from .images import write_blobs

pytestmark = pytest.mark.e2e

BETWEEN_CONTROLS = 20
CONTROL_SECONDS = 5.0
MEMORY_MIB = 300
MORE = 24  # descriptors: a second worker; each reader of the journal has a connection, of two descriptors


class Ends:
    """How files ended, by name, as the daemon told."""

    def __init__(self, results: Any) -> None:
        self._results = results
        self.by_name: dict[bytes, str] = {}

    def until(self, names: set[bytes]) -> Result | None:
        """Read on until all these have ended; returns the last result."""
        result: Result | None = None
        while not names <= self.by_name.keys():
            result = next(self._results)
            segmentation = result.segmentation
            if segmentation.plane.z == 0:
                assert segmentation.source not in self.by_name, f"{segmentation.source!r} ended twice"
            self.by_name[segmentation.source] = DONE if result.error is None else result.error.reason
        return result


def tried(odd: list[Odd]) -> set[bytes]:
    return {one.name for one in odd if IGNORED not in one.ends}


@pytest.mark.parametrize(
    "step", [pytest.param(10, id="a tenth"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_each_ends_as_it_should_and_good_ones_between_them_are_done(
    place: Callable[..., DaemonProcess], step: int
) -> None:
    files = odd_files(20, 300)[::step]
    daemon = place(settle_seconds=0.2, give_up_seconds=1.0)
    with (
        daemon,
        daemon.client() as client,
        client.subscribe("hot", start="oldest", timeout=90, metadata_only=True) as results,
    ):
        ends = Ends(results)
        write_blobs(daemon.hot / "first.tif", 1)
        ends.until({b"first.tif"})
        before = daemon.pid, memory_mib(daemon.pid), descriptors(daemon.pid)
        outside = daemon.folder / "outside"
        outside.mkdir()
        special = special_files(daemon.hot, outside)
        for start in range(0, len(files), BETWEEN_CONTROLS):
            for odd in files[start : start + BETWEEN_CONTROLS]:
                Path(os.fsdecode(bytes(daemon.hot) + b"/" + odd.name)).write_bytes(odd.data)
            control = write_blobs(daemon.hot / f"control-{start}.tif", start).name.encode()
            result = ends.until({control})
            assert result is not None
            assert ends.by_name[control] == DONE
            assert result.segmentation.latency.ToTimedelta().total_seconds() < CONTROL_SECONDS
        ends.until(tried(files))
        wait_until(lambda: client.watch("hot").waiting_count == 0, "all have ended")
        assert daemon.pid == before[0]
        assert memory_mib(daemon.pid, "VmHWM") - before[1] < MEMORY_MIB
        wait_until(lambda: descriptors(daemon.pid) <= before[2] + MORE, "no descriptor stays open")
    wrong = {odd.name: ends.by_name.get(odd.name, IGNORED) for odd in files}
    wrong = {odd.name: wrong[odd.name] for odd in files if wrong[odd.name] not in odd.ends}
    assert wrong == {}
    assert not {*special} & ends.by_name.keys()
    for odd in files:
        path = bytes(daemon.hot) + b"/" + odd.name
        assert Path(os.fsdecode(path)).read_bytes() == odd.data, "inputs stay as they are"


def memory_mib(pid: int, what: str = "VmRSS") -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
