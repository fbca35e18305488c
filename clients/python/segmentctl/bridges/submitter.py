"""Frames in, labels out, while the acquisition goes on: a bounded queue before the daemon."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol, Self

from segmentctl.bridges.frames import Counts, Frame, FrameResult
from segmentctl.bridges.retry import patiently
from segmentctl.upload import PlaneResult

WhenFull = Literal["drop-oldest", "drop-newest", "wait"]

_log = logging.getLogger("segmentctl.bridges")


class Segmenter(Protocol):
    """The part of `segmentctl.Client` that is used here."""

    @property
    def segment_plane(self) -> Callable[..., PlaneResult]:
        """Segments a plane: `segment_plane(image, model, **options)`."""
        ...


class Submitter:
    """Sends frames to a daemon from threads of its own; handing one in takes no time.

    No frame is lost silently: `counts` says what became of each one, `on_pace` is called when
    the daemon falls behind, and again when it has caught up. While the daemon cannot be reached or is busy,
    frames are tried again for `patience` seconds.

    Results and failures come from the threads of the submitter, never two at once. A frame whose
    `on_result` raises counts as failed.

    Parameters
    ----------
    client : segmentctl.Client
        The connection; it stays open when the submitter is closed.
    model : str
        Id, display name or resource name.
    on_result : callable
        Called with a `FrameResult`. With more than one worker, results may overtake each other.
    on_failure : callable
        Called with the `Frame` and the exception, mostly a `DaemonError`; by default it is logged.
    on_pace : callable
        Called with True and the `Counts` when a full queue makes frames drop or wait, and with False
        when it is half empty again; from any thread. By default it is logged.
    capacity : int
        How many frames may wait. Each is kept in memory.
    when_full : {"drop-oldest", "drop-newest", "wait"}
        What a full queue does to the frame that comes, or to whoever hands it in.
    workers : int
        How many frames are on their way at once.
    patience : float
        Seconds.
    **options
        More for `Client.segment_plane`: `min_confidence`, `postprocessing`, `encoding`...

    Examples
    --------
    >>> with Submitter(client, "nuclei", print) as frames:            # doctest: +SKIP
    ...     for number, image in enumerate(camera):
    ...         frames.submit(Frame(image, f"t{number}"))
    ...     frames.drain()
    """

    def __init__(
        self,
        client: Segmenter,
        model: str,
        on_result: Callable[[FrameResult], object],
        *,
        on_failure: Callable[[Frame, Exception], object] | None = None,
        on_pace: Callable[[bool, Counts], object] | None = None,
        capacity: int = 32,
        when_full: WhenFull = "drop-oldest",
        workers: int = 2,
        patience: float = 30.0,
        **options: Any,
    ) -> None:
        if capacity < 1 or workers < 1:
            raise ValueError("capacity and workers must be at least 1")
        self._client, self._model, self._options = client, model, options
        self._on_result = on_result
        self._on_failure = on_failure or _log_failure
        self._on_pace = on_pace or log_pace
        self._capacity, self._when_full, self._patience = capacity, when_full, patience
        self._queue: deque[tuple[Frame, float]] = deque()
        self._counts = Counts()
        self._behind = False
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._callbacks = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name=f"segmentd-bridge-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """What became of the frames so far."""
        with self._changed:
            return self._counts

    def submit(self, frame: Frame) -> bool:
        """Hand a frame in; its pixels must not change afterwards.

        Returns
        -------
        bool
            False if this frame was dropped at once.
        """
        with self._changed:
            if self._closed.is_set():
                raise RuntimeError("the submitter is closed")
            self._count(received=1, waiting=1)
            full = len(self._queue) >= self._capacity
            news = full and not self._behind
            self._behind = self._behind or full
        if news:
            self._on_pace(True, self.counts)
        with self._changed:
            taken = self._make_room()
            if taken:
                self._queue.append((frame, time.monotonic()))
            else:
                self._count(dropped=1, waiting=-1)
            self._changed.notify_all()
            return taken

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until nothing is waiting any more; False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._counts.waiting == 0, timeout)

    def close(self) -> None:
        """Drop what waits, counted; finish what is at the daemon already. `drain` first to keep all."""
        self._closed.set()
        with self._changed:
            self._count(dropped=len(self._queue), waiting=-len(self._queue))
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():  # a callback may close
                thread.join()

    def _make_room(self) -> bool:
        """Wait for or make room in the queue; False if there is none for the newest frame."""
        if self._when_full == "wait":
            self._changed.wait_for(lambda: len(self._queue) < self._capacity or self._closed.is_set())
        elif self._when_full == "drop-oldest" and len(self._queue) >= self._capacity:
            self._queue.popleft()
            self._count(dropped=1, waiting=-1)
        return len(self._queue) < self._capacity and not self._closed.is_set()

    def _count(self, **changes: int) -> None:
        values = {name: getattr(self._counts, name) + change for name, change in changes.items()}
        self._counts = replace(self._counts, **values)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed.is_set())
                if not self._queue:
                    return
                frame, since = self._queue.popleft()
                caught_up = self._behind and len(self._queue) <= self._capacity // 2
                self._behind = self._behind and not caught_up
                self._changed.notify_all()
            if caught_up:
                self._on_pace(False, self.counts)
            outcome = self._deal_with(frame, since)
            with self._changed:
                self._count(**{outcome: 1}, waiting=-1)
                self._changed.notify_all()

    def _deal_with(self, frame: Frame, since: float) -> Literal["segmented", "failed"]:
        try:
            answer = patiently(
                lambda: self._client.segment_plane(frame.image, self._model, **self._options),
                self._patience,
                self._closed,
            )
            seconds = time.monotonic() - since
            result = FrameResult(frame, answer.labels, answer.confidence, answer.summary, seconds)
            with self._callbacks:
                self._on_result(result)
        except Exception as error:  # whatever it is, also a callback's: it is told, counted, and the next
            self._tell(frame, error)  # frame has its turn
            return "failed"
        return "segmented"

    def _tell(self, frame: Frame, error: Exception) -> None:
        try:
            with self._callbacks:
                self._on_failure(frame, error)
        except Exception:
            _log.exception("the callback for failures failed with frame %s", frame.name)


def log_pace(behind: bool, counts: Counts) -> None:
    """Log that the daemon fell behind, or caught up."""
    if behind:
        _log.warning("segmentd falls behind the acquisition: %s", counts)
    else:
        _log.warning("segmentd has caught up with the acquisition: %s", counts)


def _log_failure(frame: Frame, error: Exception) -> None:
    _log.error("frame %s was not segmented: %s", frame.name, error)
