"""Repeated timing: warm-up, median and spread, wall and CPU seconds, memory."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat: on the wall, and of CPU time of this process (all threads)."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def wall_median(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        """Median CPU seconds."""
        return statistics.median(self.cpu)

    @property
    def spread_percent(self) -> float:
        """Largest less smallest wall time, in percent of the median."""
        return spread_percent(self.wall)


def once(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def repeated(work: Callable[[], object], repeats: int, warm_ups: int = 1) -> Timing:
    """Run `work` a few times unmeasured, then `repeats` times measured."""
    return interleaved([work], repeats, warm_ups)[0]


def interleaved(works: Sequence[Callable[[], object]], repeats: int, warm_ups: int = 1) -> list[Timing]:
    """Time several pieces of work in turns, so that a noisy moment hits all alike."""
    for _ in range(warm_ups):
        for work in works:
            work()
    rounds = [[once(work) for work in works] for _ in range(repeats)]
    return [
        Timing(tuple(turn[i][0] for turn in rounds), tuple(turn[i][1] for turn in rounds))
        for i in range(len(works))
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile, so a value that was really seen; `values` must not be empty."""
    rank = math.ceil(percent * len(values) / 100)
    return sorted(values)[max(rank, 1) - 1]


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and max of seconds, in milliseconds."""
    found = {f"p{percent}": percentile(seconds, percent) for percent in (50, 95, 99)} | {"max": max(seconds)}
    return {name: round(1000 * value, 2) for name, value in found.items()}


def spread_percent(values: Sequence[float]) -> float:
    """Largest less smallest value, in percent of the median."""
    return 100 * (max(values) - min(values)) / statistics.median(values)


def peak_mib(pid: int | str = "self") -> float:
    """Largest resident memory of a process so far, in MiB (Linux)."""
    return _status_kib(pid, "VmHWM") / 1024


def resident_mib(pid: int | str = "self") -> float:
    """Resident memory of a process now, in MiB (Linux)."""
    return _status_kib(pid, "VmRSS") / 1024


def _status_kib(pid: int | str, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
