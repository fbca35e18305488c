"""Is there a GPU that can be used? The driver is first touched by a child process, which may die of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DEADLINE_SECONDS = 60.0
DRIVER = Path("/proc/driver/nvidia/version")
_CHILD = """
import json
import cupy

cards = []
if cupy.cuda.is_available():
    for number in range(cupy.cuda.runtime.getDeviceCount()):
        properties = cupy.cuda.runtime.getDeviceProperties(number)
        with cupy.cuda.Device(number):
            free, total = cupy.cuda.runtime.memGetInfo()
            assert int(cupy.arange(4).sum()) == 6
        cards.append({"name": properties["name"].decode(), "free": free, "total": total})
print(json.dumps(cards))
"""


@dataclass(frozen=True)
class Card:
    """A graphics card: what it calls itself, free and all memory in bytes."""

    name: str
    free: int
    total: int


@dataclass(frozen=True)
class Probe:
    """The cards that CuPy can compute on, and why there are none."""

    cards: tuple[Card, ...] = ()
    reason: str = ""


def driver_version() -> str:
    """The NVIDIA driver's own line about itself; empty without a driver."""
    try:
        return DRIVER.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""


def probe(child: str = _CHILD, deadline_seconds: float = DEADLINE_SECONDS) -> Probe:
    """Ask a child process which cards there are; without CuPy no child is started."""
    if importlib.util.find_spec("cupy") is None:
        return Probe(reason="CuPy is not installed: install segmentd with the extra `gpu` or `gpu13`")
    return ask(child, deadline_seconds)


def ask(child: str, deadline_seconds: float) -> Probe:
    """Run the code of a probe in a child process, and read what it says."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", child],
            capture_output=True,
            text=True,
            timeout=deadline_seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Probe(reason=f"the driver did not answer for {deadline_seconds:.0f} s; restart the machine")
    if done.returncode < 0:
        return Probe(reason=f"the driver ended the process that asked it, with signal {-done.returncode}")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe(reason=f"CuPy fails: {last}")
    cards = tuple(Card(**card) for card in json.loads(done.stdout.strip().splitlines()[-1]))
    if cards:
        return Probe(cards)
    driver = "the driver shows none" if driver_version() else "there is no NVIDIA driver"
    return Probe(reason=f"CuPy is installed but finds no card: {driver}")
