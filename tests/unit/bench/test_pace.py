from __future__ import annotations

import pytest

from segmentd_bench import pace


def served(interval_s: float, service_s: float, count: int, noise_s: float = 0.0) -> pace.Pace:
    """A camera and a daemon with one place: each frame starts when it is there and the one before is done."""
    closed = [index * interval_s for index in range(count)]
    complete, free = [], 0.0
    for index, at in enumerate(closed):
        free = max(free, at) + service_s + noise_s * (index % 3)
        complete.append(free)
    return pace.judge(closed, complete)


@pytest.mark.parametrize("noise_s", [0.0, 0.05])
def test_a_daemon_that_is_fast_enough_keeps_up(noise_s: float) -> None:
    found = served(0.5, 0.3, 40, noise_s)
    assert found.falls_behind is False
    assert found.backlog == 1
    assert found.written_per_s == pytest.approx(2.0)
    assert found.returned_per_s == pytest.approx(2.0, rel=0.02)
    assert "keeps up with 2 frames/s" in str(found)


def test_a_daemon_that_is_too_slow_falls_behind() -> None:
    found = served(0.5, 0.6, 40)
    assert found.falls_behind is True
    assert found.returned_per_s == pytest.approx(1 / 0.6)
    assert found.backlog == 8  # 39 intervals make 19.5 s, enough for 32 frames
    assert found.growth_s == pytest.approx(0.1 * 30)
    assert "it sustains 1.67" in str(found)


def test_a_long_but_steady_wait_is_not_falling_behind() -> None:
    closed = [index * 0.01 for index in range(100)]
    found = pace.judge(closed, [at + 5.0 + 0.002 * (index % 5) for index, at in enumerate(closed)])
    assert found.falls_behind is False
    assert found.backlog == 100


def test_one_slow_frame_is_not_falling_behind() -> None:
    closed = [float(index) for index in range(20)]
    complete = [at + (3.0 if index == 19 else 0.1) for index, at in enumerate(closed)]
    assert pace.judge(closed, complete).falls_behind is False


@pytest.mark.parametrize("count", [1, 2, pace.FEWEST_FRAMES - 1])
def test_few_frames_tell_nothing(count: int) -> None:
    found = served(0.5, 5.0, count)
    assert found.falls_behind is None
    assert "too few frames" in str(found)
