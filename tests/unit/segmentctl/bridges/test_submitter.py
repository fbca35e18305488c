"""The queue before the daemon: order, bounds, what is told, and that nothing is lost uncounted."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from segmentctl import DaemonError, PlaneResult
from segmentctl.bridges import retry
from segmentctl.bridges.frames import Counts, Frame, FrameResult
from segmentctl.bridges.submitter import Submitter
from segmentctl.errors import UNREACHABLE
from segmentd.v1.segmentation_service_pb2 import Segmentation

LONG = 20.0  # seconds; only a test that fails waits so long


class Daemon:
    """Answers when it may; `failures` come first."""

    def __init__(self, *failures: Exception, open_: bool = True) -> None:
        self.failures = list(failures)
        self.open = threading.Event()
        self.asked = threading.Semaphore(0)
        self.options: dict[str, Any] = {}
        if open_:
            self.open.set()

    def segment_plane(self, image: Any, model: str, **options: Any) -> PlaneResult:
        self.asked.release()
        assert self.open.wait(LONG)
        self.options = {"model": model, **options}
        if self.failures:
            raise self.failures.pop(0)
        labels = np.asarray(image, np.uint8)
        return PlaneResult(labels, labels, Segmentation())


def frame(number: int) -> Frame:
    return Frame(np.full((2, 2), number, np.uint8), f"t{number}")


def numbers(results: list[FrameResult]) -> list[int]:
    return [int(result.labels[0, 0]) for result in results]


def test_labels_come_back_with_their_frames() -> None:
    results: list[FrameResult] = []
    daemon = Daemon()
    with Submitter(daemon, "nuclei", results.append, workers=1, min_confidence=60) as frames:
        assert all(frames.submit(frame(number)) for number in range(5))
        assert frames.drain(LONG)
        assert frames.counts == Counts(received=5, segmented=5)
    assert [result.frame.name for result in results] == ["t0", "t1", "t2", "t3", "t4"]
    assert numbers(results) == [0, 1, 2, 3, 4]
    assert daemon.options == {"model": "nuclei", "min_confidence": 60}


@pytest.mark.parametrize(("when_full", "kept"), [("drop-oldest", [0, 3, 4]), ("drop-newest", [0, 1, 2])])
def test_a_daemon_that_falls_behind_is_told_and_what_is_dropped_is_counted(
    when_full: Any, kept: list[int]
) -> None:
    results: list[FrameResult] = []
    paces: list[tuple[bool, Counts]] = []
    daemon = Daemon(open_=False)
    with Submitter(
        daemon,
        "nuclei",
        results.append,
        on_pace=lambda behind, counts: paces.append((behind, counts)),
        capacity=2,
        workers=1,
        when_full=when_full,
    ) as frames:
        assert frames.submit(frame(0))
        assert daemon.asked.acquire(timeout=LONG)  # it is at the daemon, not in the queue
        taken = [frames.submit(frame(number)) for number in (1, 2, 3, 4)]
        assert taken == ([True] * 4 if when_full == "drop-oldest" else [True, True, False, False])
        assert frames.counts == Counts(received=5, dropped=2, waiting=3)
        assert [behind for behind, _ in paces] == [True], "it is told once, when it begins"
        daemon.open.set()
        assert frames.drain(LONG)
        assert frames.counts == Counts(received=5, segmented=3, dropped=2)
    assert numbers(results) == kept
    assert [behind for behind, _ in paces] == [True, False]


def test_whoever_hands_in_may_wait_instead() -> None:
    results: list[FrameResult] = []
    paces: list[bool] = []
    daemon = Daemon(open_=False)
    with Submitter(
        daemon,
        "nuclei",
        results.append,
        on_pace=lambda behind, _: paces.append(behind),
        capacity=1,
        workers=1,
        when_full="wait",
    ) as frames:
        camera = threading.Thread(target=lambda: [frames.submit(frame(number)) for number in range(6)])
        camera.start()
        assert daemon.asked.acquire(timeout=LONG)
        camera.join(0.05)
        assert camera.is_alive()
        daemon.open.set()
        camera.join(LONG)
        assert frames.drain(LONG)
        assert frames.counts == Counts(received=6, segmented=6)
    assert numbers(results) == [0, 1, 2, 3, 4, 5]
    assert paces[0] is True


def test_closing_counts_what_was_still_waiting() -> None:
    daemon = Daemon(open_=False)
    frames = Submitter(daemon, "nuclei", print, workers=1)
    for number in range(4):
        frames.submit(frame(number))
    assert daemon.asked.acquire(timeout=LONG)
    threading.Timer(0.05, daemon.open.set).start()
    frames.close()
    assert frames.counts == Counts(received=4, segmented=1, dropped=3)
    with pytest.raises(RuntimeError, match="closed"):
        frames.submit(frame(4))


def test_a_daemon_that_restarts_loses_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_DELAY", 0.001)
    results: list[FrameResult] = []
    gone = [DaemonError(reason, "gone") for reason in (UNREACHABLE, "SHUTTING_DOWN", "DEVICE_BUSY")]
    with Submitter(Daemon(*gone), "nuclei", results.append, workers=1) as frames:
        frames.submit(frame(7))
        assert frames.drain(LONG)
    assert numbers(results) == [7]


def test_what_cannot_be_segmented_is_told_and_the_rest_goes_on() -> None:
    results: list[FrameResult] = []
    failures: list[tuple[str, str]] = []

    def refuse_second(result: FrameResult) -> None:
        if result.frame.name == "t1":
            raise OSError("disk full")
        results.append(result)

    mismatch = DaemonError("PIXEL_TYPE_MISMATCH", "the model wants uint16")
    with Submitter(
        Daemon(mismatch),
        "nuclei",
        refuse_second,
        on_failure=lambda frame, error: failures.append((frame.name, str(error))),
        workers=1,
    ) as frames:
        for number in range(3):
            frames.submit(frame(number))
        assert frames.drain(LONG)
        assert frames.counts == Counts(received=3, segmented=1, failed=2)
    assert failures == [("t0", "the model wants uint16"), ("t1", "disk full")]
    assert numbers(results) == [2]
    assert str(frames.counts) == "3 frames, 1 segmented, 2 failed"


def test_patience_ends() -> None:
    daemon = Daemon(*[DaemonError("DEVICE_BUSY", "busy")] * 3)
    failures: list[str] = []
    with Submitter(
        daemon, "nuclei", print, on_failure=lambda _, error: failures.append(str(error)), patience=0.0
    ) as frames:
        frames.submit(frame(0))
        assert frames.drain(LONG)
    assert failures == ["busy"]


@pytest.mark.parametrize("sizes", [{"capacity": 0}, {"workers": 0}])
def test_sizes_must_make_sense(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Submitter(Daemon(), "nuclei", print, **sizes)  # type: ignore[arg-type]
