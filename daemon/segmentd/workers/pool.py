"""The daemon's side: worker processes that are started when needed, used again, and replaced.

A worker is a fresh interpreter (never a fork: the daemon has threads and gRPC). It is replaced after a
crash, after a deadline, after a failed allocation, and now and then, so that leaks stay small.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from segmentd.errors import Reason, SegmentdError
from segmentd.workers import wire

START_SECONDS = 60.0
CALLS_PER_WORKER = 2000
ADVICE = "the file may be damaged"
# A process that was killed while it waits for a driver or a share that hangs may never end.
END_SECONDS = 10.0
MAX_TEXT = 4000
REASONS = frozenset(Reason)
GIB = 1 << 30
SOURCES = Path(__file__).parents[2]
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Reply:
    """What a call returned: a plain JSON value and arrays of the caller's own."""

    value: Any
    arrays: list[wire.AnyArray]


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
        self._running: set[_Worker] = set()
        # Last in, first out: the worker used last still has the caches of the file it read.
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
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
        subject = f"{subject}: " if subject else ""
        seconds = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        worker = self._slots.get()
        try:
            if worker is None:
                worker = self._start()
            return worker.ask({"target": target, "args": args}, fds, seconds, subject)
        except _WorkerGoneError as error:
            raise self._closed_fault() if self._closed else error.fault from error
        finally:
            if worker is not None and not worker.usable(self._calls_per_worker):
                self._discard(worker)
                worker = None
            self._slots.put(worker)

    def close(self) -> None:
        """End all workers; calls that run or wait fail with `SHUTTING_DOWN`."""
        with self._lock:
            self._closed = True
            for running in self._running:
                running.kill()
        for worker in [self._slots.get() for _ in range(self._size)]:
            if worker is not None:
                self._discard(worker)
        for _ in range(self._size):
            self._slots.put(None)

    def _start(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise self._closed_fault()
            worker = _Worker(self._memory_bytes, self._packages, self._advice)
            self._running.add(worker)
        return worker

    def _discard(self, worker: _Worker) -> None:
        with self._lock:
            self._running.discard(worker)
        worker.end()

    @staticmethod
    def _closed_fault() -> SegmentdError:
        return SegmentdError(Reason.SHUTTING_DOWN, "the workers are being shut down; try again later")


class _WorkerGoneError(Exception):
    """The worker cannot be used again."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self._reason = reason

    @property
    def fault(self) -> SegmentdError:
        """For the caller; not kept, since two errors that name each other keep all that their frames hold."""
        return SegmentdError(self._reason, str(self))


class _Worker:
    """One child process and the socket to it."""

    def __init__(self, memory_bytes: int, packages: tuple[str, ...], advice: str) -> None:
        self._advice = advice
        self._sock, child_sock = socket.socketpair()
        # Nothing is ever sent on the lifeline. The kernel kills the worker when this end is closed, be it
        # by us or because the daemon is gone, whatever the worker is doing then.
        self._lifeline, child_lifeline = socket.socketpair()
        self._ready = False
        self._in_step = True  # no answer is outstanding
        self._calls = 0
        fds = (child_sock.fileno(), child_lifeline.fileno())
        with child_sock, child_lifeline:
            arguments = [*fds, memory_bytes, *packages]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "segmentd.workers", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=fds,
                env=_environment(),
                start_new_session=True,  # Ctrl-C at a terminal must not reach it
            )

    def usable(self, most_calls: int | None) -> bool:
        return self._in_step and (most_calls is None or self._calls < most_calls)

    def ask(self, request: dict[str, Any], fds: Sequence[int], seconds: float, subject: str) -> Reply:
        self._in_step = False
        self._calls += 1
        if not self._ready:
            self._wait_until_ready(subject)
        received: list[int] = []
        try:
            self._sock.settimeout(seconds)
            wire.send(self._sock, request, fds)
            message, received = wire.receive(self._sock, 1, time.monotonic() + seconds)
            if "fault" in message:
                raise self._fault(message["fault"], subject)
            arrays = wire.map_arrays(message.get("arrays"), received[0] if received else None)
        except TimeoutError as error:
            text = f"{subject}not done after {seconds:g} seconds, given up; {self._advice}"
            raise _WorkerGoneError(Reason.WORKER_DEADLINE, text) from error
        except wire.BrokenWireError as error:
            text = f"{subject}the worker process answered with {error}; it was replaced"
            raise _WorkerGoneError(Reason.WORKER_CRASHED, text) from error
        except (EOFError, ConnectionError) as error:
            text = f"{subject}the worker process crashed ({self.end()}); {self._advice}"
            raise _WorkerGoneError(Reason.WORKER_CRASHED, text) from error
        finally:
            wire.close_all(received)
        self._in_step = True
        return Reply(message.get("value"), arrays)

    def _wait_until_ready(self, subject: str) -> None:
        try:
            wire.receive(self._sock, 0, time.monotonic() + START_SECONDS)
        except (EOFError, OSError, wire.BrokenWireError) as error:
            text = f"{subject}a worker process did not start ({self.end()}); its output on stderr says why"
            raise _WorkerGoneError(Reason.WORKER_CRASHED, text) from error
        self._ready = True

    def _fault(self, fault: object, subject: str) -> Exception:
        """Make the exception to raise of what the worker reported."""
        if not isinstance(fault, dict):
            return wire.BrokenWireError("a fault without a description")
        text = str(fault.get("message"))[:MAX_TEXT]
        match fault.get("kind"):
            case "memory":
                message = f"{subject}needs more memory than a worker process may use; use a smaller image"
                return _WorkerGoneError(Reason.WORKER_MEMORY, message)
            case "segmentd" if str(fault.get("reason")) in REASONS:
                self._in_step = True
                metadata = fault.get("metadata")
                pairs = metadata.items() if isinstance(metadata, dict) else ()
                known = {str(key)[:MAX_TEXT]: str(value)[:MAX_TEXT] for key, value in pairs}
                return SegmentdError(Reason(str(fault["reason"])), text, **known)
            case "other":
                self._in_step = True
                return SegmentdError(Reason.INTERNAL, f"{subject}{text}")
        return wire.BrokenWireError("a fault of an unknown kind")

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> str:
        """Kill the process if it still runs, and tell how it ended."""
        # A process that crashed by itself is gone a moment after its end of the socket.
        code = self._exit_code(0 if self._in_step else 0.2)
        if code is None:
            self._process.kill()
            code = self._exit_code(END_SECONDS)
        self._sock.close()
        self._lifeline.close()
        return "killed, and it does not end" if code is None else _how_it_ended(code)

    def _exit_code(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        return "killed by SIGKILL: by the system when memory ran out, or by somebody"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _environment() -> dict[str, str]:
    """Make the worker's: as the daemon's, the same import paths, one thread for each numeric library."""
    paths = [str(SOURCES), *(path for path in sys.path if path)]
    limits = dict.fromkeys(ONE_THREAD, "1") | {"MALLOC_ARENA_MAX": "2", "TIFFFILE_NUM_THREADS": "2"}
    return {**os.environ, **limits, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
