"""The daemon's side: worker processes that are started when needed, used again, and replaced.

A worker is a fresh interpreter (never a fork: the daemon has threads and gRPC). It is replaced after a
crash, after a deadline, after a failed allocation, and now and then, so that leaks stay small.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any, Self

from segmentd.errors import Reason, SegmentdError
from segmentd.workers.process import Reply, Worker, WorkerGoneError

CALLS_PER_WORKER = 2000
ADVICE = "the file may be damaged"
GIB = 1 << 30


class WorkerPool:
    """At most `size` worker processes for calls from any thread.

    Parameters
    ----------
    size : int
        Processes at the same time; further calls wait for a free one.
    memory_bytes : int
        Address space of one process; 0 is no limit. A call that needs more fails with `WORKER_MEMORY`.
    deadline_seconds : float
        Time for one call, unless the call says otherwise; the process is killed after it.
    packages : tuple of str
        The packages whose functions may be called.
    calls_per_worker : int, optional
        After so many calls a process is replaced; None where it keeps what later calls need.
    advice : str
        What messages of crashes and deadlines end in.
    """

    def __init__(
        self,
        size: int = 2,
        memory_bytes: int = 6 * GIB,
        deadline_seconds: float = 60.0,
        packages: tuple[str, ...] = ("segmentd",),
        calls_per_worker: int | None = CALLS_PER_WORKER,
        advice: str = ADVICE,
    ) -> None:
        if size < 1:
            raise ValueError(f"size = {size}: must be >= 1")
        self._memory_bytes = memory_bytes
        self._deadline_seconds = deadline_seconds
        self._packages = packages
        self._calls_per_worker = calls_per_worker
        self._advice = advice
        self._lock = threading.Lock()
        self._size = size
        self._closed = False
        self._running: set[Worker] = set()
        self._spare: list[Worker] = []  # of sessions that ended
        # Last in, first out: the worker used last still has the caches of the file it read.
        self._slots: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._slots.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def call(
        self,
        target: str,
        args: dict[str, Any],
        fds: Sequence[int] = (),
        deadline_seconds: float | None = None,
        subject: str = "",
    ) -> Reply:
        """Run `target` in a worker and wait for what it returns.

        Parameters
        ----------
        target : str
            `"package.module:function"`; the function takes `(args: dict, fds: list[int])` and returns
            `(json_value, list_of_arrays)`. It must not close the descriptors.
        args : dict
            Plain JSON values.
        fds : sequence of int
            Open descriptors to hand over; they stay open here.
        subject : str
            What the call is about, a file name for instance; messages start with it.

        Raises
        ------
        SegmentdError
            As the function raised it; or `WORKER_CRASHED`, `WORKER_DEADLINE`, `WORKER_MEMORY`, `INTERNAL`
            for an exception of another kind, `SHUTTING_DOWN` when the pool is closed.
        """
        seconds = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        worker = self._slots.get()
        try:
            if worker is None:
                worker = self._start()
            return self._ask(worker, target, args, fds, seconds, subject)
        finally:
            if worker is not None and not worker.usable(self._calls_per_worker):
                self._discard(worker)
                worker = None
            self._slots.put(worker)

    def session(self) -> Session:
        """Lend a process of its own, for calls of which the later ones need what the earlier ones left.

        It comes on top of those for `call`, so that work which holds a session can wait for them. The
        caller ends the session.
        """
        with self._lock:
            worker = self._spare.pop() if self._spare else None
        return Session(self, worker or self._start())

    def close(self) -> None:
        """End all workers; calls that run or wait fail with `SHUTTING_DOWN`."""
        with self._lock:
            self._closed = True
            for running in self._running:
                running.kill()
        for worker in (*(self._slots.get() for _ in range(self._size)), *self._spare):
            if worker is not None:
                self._discard(worker)
        self._spare.clear()
        for _ in range(self._size):
            self._slots.put(None)

    def _ask(
        self,
        worker: Worker,
        target: str,
        args: dict[str, Any],
        fds: Sequence[int],
        seconds: float,
        subject: str,
    ) -> Reply:
        subject = f"{subject}: " if subject else ""
        try:
            return worker.ask({"target": target, "args": args}, fds, seconds, subject)
        except WorkerGoneError as error:
            raise self._closed_fault() if self._closed else error.fault from error

    def _take_back(self, worker: Worker, reuse: bool) -> None:
        with self._lock:
            keep = reuse and not self._closed and worker.usable(self._calls_per_worker)
            if keep:
                self._spare.append(worker)
        if not keep:
            self._discard(worker)

    def _start(self) -> Worker:
        with self._lock:
            if self._closed:
                raise self._closed_fault()
            worker = Worker(self._memory_bytes, self._packages, self._advice)
            self._running.add(worker)
        return worker

    def _discard(self, worker: Worker) -> None:
        with self._lock:
            self._running.discard(worker)
        worker.end()

    @staticmethod
    def _closed_fault() -> SegmentdError:
        return SegmentdError(Reason.SHUTTING_DOWN, "the workers are being shut down; try again later")


class Session:
    """A worker process for one caller at a time; made by `WorkerPool.session`."""

    def __init__(self, pool: WorkerPool, worker: Worker) -> None:
        self._pool = pool
        self._worker: Worker | None = worker

    def call(
        self,
        target: str,
        args: dict[str, Any],
        fds: Sequence[int] = (),
        deadline_seconds: float | None = None,
        subject: str = "",
    ) -> Reply:
        """Do as `WorkerPool.call`, always in the same process."""
        if self._worker is None:
            raise ValueError("the session has ended")
        seconds = self._pool._deadline_seconds if deadline_seconds is None else deadline_seconds
        return self._pool._ask(self._worker, target, args, fds, seconds, subject)

    def end(self, *, reuse: bool) -> None:
        """Give the process back, for `reuse` only if it holds nothing more of this session."""
        if self._worker is not None:
            self._pool._take_back(self._worker, reuse)
            self._worker = None
