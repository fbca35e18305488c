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
NO_CUPY = "CuPy is not installed: install segmentd with the extra `gpu` or `gpu13` to use NVIDIA cards"


@dataclass(frozen=True)
class Card:
    """A graphics card: what it calls itself, free and all memory in bytes, why it is not to be used."""

    name: str
    free: int
    total: int
    fault: str = ""


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


def has_cupy() -> bool:
    """Whether CuPy is installed; it is not imported."""
    return importlib.util.find_spec("cupy") is not None


def probe(child: str, deadline_seconds: float = DEADLINE_SECONDS) -> Probe:
    """Ask a child process which cards there are (see `ask`); without CuPy none is started."""
    return ask(child, deadline_seconds) if has_cupy() else Probe(reason=NO_CUPY)


def ask(child: str, deadline_seconds: float) -> Probe:
    """Run Python code in a child process that prints a JSON list of the fields of cards in its last line."""
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
