"""How much at once, and when to try again: decisions without a clock or a device."""

from __future__ import annotations

from collections import deque

import pytest

from segmentd.engine.ladder import GROW_SECONDS, SMALLEST_TILE_PX, BackOff, Fit, cut
from segmentd.records import Region

TILES = [Region(0, x, 512, 512) for x in range(0, 12 * 512, 512)]


def test_batches_are_halved_then_tiles_then_it_is_over() -> None:
    fit, left = Fit(8), deque(TILES)
    seen = []
    while True:
        batch = fit.take(left, may_cut=True)
        seen.append((len(batch), batch[0].width))
        left.extendleft(reversed(batch))
        if not fit.shrink(0.0, batch, may_cut=True):
            break
    assert seen == [(8, 512), (4, 512), (2, 512), (1, 512), (1, 256), (1, 128), (1, 64)]
    assert seen[-1][1] == SMALLEST_TILE_PX
    assert sum(core.width * core.height for core in left) == sum(core.width * core.height for core in TILES)


def test_tiles_whose_labels_would_change_are_not_cut() -> None:
    fit = Fit(1)
    assert not fit.shrink(0.0, [TILES[0]], may_cut=False)
    assert fit.take(deque(TILES), may_cut=False) == TILES[:1]


def test_a_last_batch_that_was_small_halves_itself() -> None:
    fit = Fit(8)
    assert fit.shrink(0.0, TILES[:3], may_cut=True)
    assert fit.batch == 1


def test_rungs_are_taken_up_again_after_a_while() -> None:
    fit = Fit(8)
    for batch in (TILES[:8], TILES[:4], TILES[:2], TILES[:1]):
        assert fit.shrink(100.0, batch, may_cut=True)
    assert (fit.batch, fit.tile_px) == (1, 256)
    fit.grow(100.0 + GROW_SECONDS - 0.1)
    assert (fit.batch, fit.tile_px) == (1, 256)
    now, seen = 100.0, []
    for _ in range(5):
        now += GROW_SECONDS
        fit.grow(now)
        seen.append((fit.batch, fit.tile_px))
    assert seen == [(1, None), (2, None), (4, None), (8, None), (8, None)]


def test_parts_cover_a_region_once() -> None:
    core = Region(10, 20, 150, 100)
    parts = list(cut(core, 64))
    assert {(part.y, part.x) for part in parts} == {(y, x) for y in (10, 74, 138) for x in (20, 84)}
    assert sum(part.height * part.width for part in parts) == 150 * 100
    assert parts[-1] == Region(138, 84, 22, 36)


def test_waits_double_up_to_a_minute_and_begin_anew_after_success() -> None:
    back_off, now, waits = BackOff(), 50.0, []
    assert back_off.may_try(now)
    for _ in range(8):
        back_off.failed(now, "was lost")
        wait = next(seconds for seconds in range(1, 100) if back_off.may_try(now + seconds))
        assert not back_off.may_try(now + wait - 0.01)
        waits.append(wait)
        now += wait
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert back_off.reason == "was lost"
    back_off.worked()
    assert back_off.reason == ""
    back_off.failed(now, "again")
    assert back_off.may_try(now + 1)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_everything_that_is_left_is_taken_in_order(count: int) -> None:
    fit, left, taken = Fit(5), deque(TILES[:count]), []
    while left:
        taken += fit.take(left, may_cut=True)
    assert taken == TILES[:count]
