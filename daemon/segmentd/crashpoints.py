"""Named points at which a test can have the daemon killed: `SEGMENTD_CRASH_AT=before-commit` or `found:3`.

Off unless the variable is set when the daemon starts. At the point, or at the N-th passage through it, the
process kills itself with SIGKILL: nothing is flushed, closed or cleaned up, as with a power switch.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from dataclasses import dataclass, field

from segmentd.errors import ConfigurationError

VARIABLE = "SEGMENTD_CRASH_AT"
# In the order in which an image passes them.
POINTS = (
    "found",
    "opened",
    "decoded",
    "computed",
    "result-written",
    "result-synced",
    "result-put-aside",
    "result-half-renamed",
    "result-renamed",
    "folder-synced",
    "result-linked",
    "before-commit",
    "in-commit",
    "after-commit",
    "before-notify",
    "before-move",
    "moved",
)


@dataclass
class _Armed:
    """The point to end at, and how many passages are left until then."""

    point: str
    passages: int
    lock: threading.Lock = field(default_factory=threading.Lock)


_armed: _Armed | None = None


def arm() -> None:
    """Read SEGMENTD_CRASH_AT; only a process that has called this ever crashes.

    Raises
    ------
    ConfigurationError
        There is no such point.
    """
    global _armed
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        _armed = None
        return
    match = re.fullmatch(r"([a-z-]+)(?::([1-9][0-9]{0,8}))?", wanted)
    if match is None or match[1] not in POINTS:
        raise ConfigurationError(
            [f"{VARIABLE} = {json.dumps(wanted)}: must be POINT or POINT:N with one of {', '.join(POINTS)}"]
        )
    _armed = _Armed(match[1], int(match[2] or 1))


def reach(point: str) -> None:
    """End the process here if this is the point that was asked for."""
    armed = _armed
    if armed is None or armed.point != point:
        return
    with armed.lock:
        armed.passages -= 1
        if armed.passages == 0:
            os.kill(os.getpid(), signal.SIGKILL)
