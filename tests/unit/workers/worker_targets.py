"""What the tests of the workers call there; imported in the worker process only."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.errors import Reason, SegmentdError

Answer = tuple[Any, list[npt.NDArray[Any]]]


def echo(args: dict[str, Any], fds: list[int]) -> Answer:
    return {"args": args, "pid": os.getpid(), "modules": sorted(sys.modules)}, []


def environment(args: dict[str, Any], fds: list[int]) -> Answer:
    return dict(os.environ), []


def read_all(args: dict[str, Any], fds: list[int]) -> Answer:
    return [os.pread(fd, 100, 0).decode() for fd in fds], []


def open_descriptors(args: dict[str, Any], fds: list[int]) -> Answer:
    return len(list(Path("/proc/self/fd").iterdir())), []


def ramp(args: dict[str, Any], fds: list[int]) -> Answer:
    shapes = [(3, 5, 7), (), (0, 4), (11,)]
    arrays = [np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(args["dtype"]) for shape in shapes]
    return None, [*arrays, np.arange(24).reshape(4, 6).astype(args["dtype"])[::2, ::3]]


def objects(args: dict[str, Any], fds: list[int]) -> Answer:
    return None, [np.array([object()])]


def no_json(args: dict[str, Any], fds: list[int]) -> Answer:
    return {1, 2}, []


def abort(args: dict[str, Any], fds: list[int]) -> Answer:
    os.abort()


def segfault(args: dict[str, Any], fds: list[int]) -> Answer:
    ctypes.string_at(0)
    return None, []


def leave(args: dict[str, Any], fds: list[int]) -> Answer:
    os._exit(args["code"])


def hang(args: dict[str, Any], fds: list[int]) -> Answer:
    time.sleep(600)
    return None, []


def hang_with_the_lock_held(args: dict[str, Any], fds: list[int]) -> Answer:
    """As a decoder in an endless loop: no other thread of the interpreter runs."""
    ctypes.PyDLL(None).sleep(600)
    return None, []


def hog(args: dict[str, Any], fds: list[int]) -> Answer:
    return None, [np.ones(args["bytes"], np.uint8)]


def fault(args: dict[str, Any], fds: list[int]) -> Answer:
    raise SegmentdError(Reason.IMAGE_CORRUPT, "x.tif: its strips are torn", file="x.tif", strip="3")


def bug(args: dict[str, Any], fds: list[int]) -> Answer:
    raise ZeroDivisionError("of zero by zero")


def interrupt_oneself(args: dict[str, Any], fds: list[int]) -> Answer:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return {"session": os.getsid(0), "pid": os.getpid()}, []
