from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentd_bench import measure

SERIES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [
        (1, 50, 1),
        (2, 50, 1),
        (4, 50, 2),
        (20, 95, 19),
        (100, 99, 99),
        (100, 100, 100),
        (10, 99, 10),
        (5, 0, 1),
    ],
)
def test_nearest_rank(count: int, percent: float, expected: int) -> None:
    assert measure.percentile([float(value) for value in range(count, 0, -1)], percent) == expected


@given(SERIES, st.floats(0.1, 100))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(
    values: list[float], percent: float
) -> None:
    found = measure.percentile(values, percent)
    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values) * (1 - 1e-9)


def test_percentiles_in_milliseconds() -> None:
    seconds = [number / 1000 for number in range(1, 101)]
    assert measure.percentiles_ms(seconds) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def test_median_and_spread_of_a_timing() -> None:
    timing = measure.Timing(wall=(2.0, 1.0, 4.0), cpu=(0.5, 1.5, 1.0))
    assert (timing.wall_median, timing.cpu_median, timing.spread_percent) == (2.0, 1.0, 150.0)


def test_work_is_done_in_turns_after_warm_ups() -> None:
    done: list[str] = []
    timings = measure.interleaved([lambda: done.append("a"), lambda: done.append("b")], 3, warm_ups=2)
    assert done == ["a", "b"] * 5
    assert [len(timing.wall) for timing in timings] == [3, 3]


def test_cpu_seconds_are_not_wall_seconds() -> None:
    wall, cpu = measure.once(lambda: time.sleep(0.05))
    assert wall >= 0.05 > cpu


def test_memory_of_this_process_and_of_none() -> None:
    assert 1 < measure.resident_mib() <= measure.peak_mib()
    assert measure.resident_mib(2**22 + 1) == 0  # above the largest process id
