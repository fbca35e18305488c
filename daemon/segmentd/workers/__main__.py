"""The worker's side: answers calls until the daemon goes away.

Started by `segmentd.workers.pool` as `python -m segmentd.workers SOCKET LIFELINE MEMORY_BYTES PACKAGE...`.
"""

from __future__ import annotations

import errno
import faulthandler
import fcntl
import importlib
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from segmentd.errors import SegmentdError
from segmentd.workers import wire

Target = Callable[[dict[str, Any], list[int]], tuple[Any, list[wire.AnyArray]]]


def main(work_fd: int, lifeline_fd: int, memory_bytes: int, packages: tuple[str, ...]) -> None:
    """Set limits, say that we are ready, and answer one call after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_daemon(lifeline_fd)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    faulthandler.enable()
    sock = socket.socket(fileno=work_fd)
    wire.send(sock, {"ready": True})
    while True:
        try:
            request, fds = wire.receive(sock, wire.MAX_DESCRIPTORS)
        except (EOFError, ConnectionError):
            return
        try:
            _answer(sock, request, fds, packages)
        except ConnectionError:
            return
        finally:
            wire.close_all(fds)


def _die_with_daemon(lifeline_fd: int) -> None:
    """Have the kernel kill this process when the daemon's end of the lifeline is closed.

    Not PR_SET_PDEATHSIG, which fires when the daemon's *thread* that started us ends.
    """
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)
    lifeline = socket.socket(fileno=lifeline_fd)
    try:
        if lifeline.recv(1, socket.MSG_DONTWAIT) == b"":
            os._exit(0)
    except BlockingIOError:
        lifeline.detach()


def _answer(sock: socket.socket, request: dict[str, Any], fds: list[int], packages: tuple[str, ...]) -> None:
    reply, memory_fd = _run(request["target"], request["args"], fds, packages)
    try:
        wire.send(sock, reply, [] if memory_fd is None else [memory_fd])
    except (TypeError, ValueError) as error:
        wire.send(sock, _fault("other", f"{request['target']} returned what is no JSON: {error}"))
    finally:
        if memory_fd is not None:
            os.close(memory_fd)


def _run(
    target: str, args: dict[str, Any], fds: list[int], packages: tuple[str, ...]
) -> tuple[dict[str, Any], int | None]:
    """Call the target; return the message to send and the memory with the arrays, if any."""
    try:
        value, arrays = _find(target, packages)(args, fds)
        described, memory_fd = wire.pack_arrays(arrays)
    except SegmentdError as error:
        return _fault("segmentd", error.message, reason=error.reason.value, metadata=error.metadata), None
    except MemoryError:
        return _fault("memory", ""), None
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return _fault("memory", ""), None
        traceback.print_exc()
        return _fault("other", f"{type(error).__name__}: {error}"), None
    return {"value": value, "arrays": described}, memory_fd


def _fault(kind: str, message: str, **more: Any) -> dict[str, Any]:
    return {"fault": {"kind": kind, "message": message, **more}}


def _find(target: str, packages: tuple[str, ...]) -> Target:
    module, _, function = target.partition(":")
    if not f"{module}.".startswith(tuple(f"{name}." for name in packages)) or function.startswith("_"):
        raise ValueError(f"{target} may not be called in a worker")
    found: Target = getattr(importlib.import_module(module), function)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), tuple(sys.argv[4:]))
