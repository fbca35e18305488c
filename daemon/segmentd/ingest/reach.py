"""Whether a watched folder is there, and whether it is still the same one."""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from segmentd.records import WatchSpec

HANG_SECONDS = 20.0

Identity = tuple[int, int]
P = ParamSpec("P")
T = TypeVar("T")


class OutOfReachError(Exception):
    """The folder cannot be read, or is another one than before."""


class Disk:
    """Reads a watched folder in a thread of its own, so that a share that hangs keeps nobody else waiting."""

    def __init__(self, spec: WatchSpec) -> None:
        self._folder = spec.folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"folder-{spec.id}")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function.

        Raises
        ------
        OutOfReachError
            It raised an OSError, or does not come back. Then the next calls wait behind it.
        """
        work = functools.partial(function, *args, **kwargs)
        doing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            # Not `wait_for`: before Python 3.12 it may swallow that we are cancelled.
            async with asyncio.timeout(HANG_SECONDS):
                return await doing
        except OSError as error:
            why = error.strerror or f"no answer for {HANG_SECONDS:g} seconds"
            raise OutOfReachError(f"{self._folder} cannot be read ({why})") from error

    def close(self) -> None:
        """Give the thread up."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def identity(spec: WatchSpec) -> Identity:
    """Return what tells this folder from another one under the same name; blocks as long as its disk does.

    Raises
    ------
    OSError
        The folder is out of reach, or its marker file is missing: it is the empty mount point of a share
        that is not there.
    """
    found = spec.folder.stat()
    if spec.marker_file is not None:
        try:
            (spec.folder / spec.marker_file).stat()
        except FileNotFoundError as error:
            text = f"its marker file {spec.marker_file} is not there; is the share mounted?"
            raise OSError(errno.ENOENT, text) from error
    return found.st_dev, found.st_ino


def within_reach(spec: WatchSpec) -> bool:
    """Whether the folder can be read now; if not, what its files are like says nothing about them."""
    try:
        identity(spec)
    except OSError:
        return False
    return True
