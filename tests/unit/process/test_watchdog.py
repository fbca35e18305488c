"""Pings come while the work gets on, and stop while a piece of it hangs."""

from __future__ import annotations

import asyncio

import pytest

from segmentd.engine.activity import Activity
from segmentd.process.notify import Notifier
from segmentd.process.watchdog import gets_on, keep_telling


@pytest.mark.parametrize(
    ("now", "since", "fine"), [(100.0, None, True), (100.0, 90.0, True), (100.0, 89.9, False)]
)
def test_only_a_piece_of_work_that_takes_too_long_is_a_fault(
    now: float, since: float | None, fine: bool
) -> None:
    assert gets_on(now, since, patience_seconds=10.0) is fine


def test_the_oldest_piece_counts() -> None:
    now = 0.0
    activity = Activity(lambda: now)
    assert activity.oldest() is None
    with activity.piece():
        now = 5.0
        with activity.piece():
            assert activity.oldest() == 0.0
        with pytest.raises(OSError, match="tile"), activity.piece():
            raise OSError("tile")
        assert activity.oldest() == 0.0
    assert activity.oldest() is None


class Told(Notifier):
    """Keeps what it was told."""

    def __init__(self, watchdog_seconds: float | None) -> None:
        super().__init__("@nobody", watchdog_seconds)
        self.messages: list[str] = []

    def _send(self, message: str) -> None:
        self.messages.append(message)


async def told_over(notifier: Told, times: list[float], since: float | None) -> None:
    """Let the watchdog run through these moments."""
    moments = iter(times)
    now = next(moments)

    async def sleep(seconds: float) -> None:
        nonlocal now
        try:
            now = next(moments)
        except StopIteration:
            raise asyncio.CancelledError from None

    with pytest.raises(asyncio.CancelledError):
        await keep_telling(notifier, lambda: since, lambda: "serving", lambda: now, sleep)


async def test_pings_stop_while_a_piece_of_work_hangs(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Told(watchdog_seconds=1.0)
    await told_over(notifier, [0.0, 5.0, 10.0, 10.5, 12.0], since=0.0)
    assert notifier.messages.count("WATCHDOG=1") == 3
    assert notifier.messages[0] == "STATUS=serving"
    assert notifier.messages[-1] == "STATUS=a piece of work does not end; it was begun more than 10 s ago"
    assert caplog.text.count("the watchdog is not told any more") == 1


async def test_without_a_watchdog_only_the_status_is_told() -> None:
    notifier = Told(watchdog_seconds=None)
    await told_over(notifier, [0.0, 1e9], since=0.0)
    assert notifier.messages == ["STATUS=serving"]
