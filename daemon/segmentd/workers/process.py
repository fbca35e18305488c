"""One worker process, seen from the daemon: started, asked, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentd.errors import Reason, SegmentdError
from segmentd.workers import wire

START_SECONDS = 60.0
# A process that was killed while it waits for a driver or a share that hangs may never end.
END_SECONDS = 10.0
MAX_TEXT = 4000
REASONS = frozenset(Reason)
SOURCES = Path(__file__).parents[2]
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Reply:
    """What a call returned: a plain JSON value and arrays of the caller's own."""

    value: Any
    arrays: list[wire.AnyArray]


class WorkerGoneError(Exception):
    """The worker cannot be used again."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self._reason = reason

    @property
    def fault(self) -> SegmentdError:
        """For the caller; not kept, since two errors that name each other keep all that their frames hold."""
        return SegmentdError(self._reason, str(self))


class Worker:
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
        """Whether it may be asked again, after at most so many calls."""
        return self._in_step and (most_calls is None or self._calls < most_calls)

    def ask(self, request: dict[str, Any], fds: Sequence[int], seconds: float, subject: str) -> Reply:
        """Send a request and wait for its answer; raises what it says, or `WorkerGoneError`."""
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
            raise WorkerGoneError(Reason.WORKER_DEADLINE, text) from error
        except wire.BrokenWireError as error:
            text = f"{subject}the worker process answered with {error}; it was replaced"
            raise WorkerGoneError(Reason.WORKER_CRASHED, text) from error
        except (EOFError, ConnectionError) as error:
            text = f"{subject}the worker process crashed ({self.end()}); {self._advice}"
            raise WorkerGoneError(Reason.WORKER_CRASHED, text) from error
        finally:
            wire.close_all(received)
        self._in_step = True
        return Reply(message.get("value"), arrays)

    def _wait_until_ready(self, subject: str) -> None:
        try:
            wire.receive(self._sock, 0, time.monotonic() + START_SECONDS)
        except (EOFError, OSError, wire.BrokenWireError) as error:
            text = f"{subject}a worker process did not start ({self.end()}); its output on stderr says why"
            raise WorkerGoneError(Reason.WORKER_CRASHED, text) from error
        self._ready = True

    def _fault(self, fault: object, subject: str) -> Exception:
        """Make the exception to raise of what the worker reported."""
        if not isinstance(fault, dict):
            return wire.BrokenWireError("a fault without a description")
        text = str(fault.get("message"))[:MAX_TEXT]
        match fault.get("kind"):
            case "memory":
                message = f"{subject}needs more memory than a worker process may use; use a smaller image"
                return WorkerGoneError(Reason.WORKER_MEMORY, message)
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
        """End it at once; whoever waits for an answer is told."""
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
