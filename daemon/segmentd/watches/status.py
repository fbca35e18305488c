"""How a watch fares, for people and for the API."""

from __future__ import annotations

from dataclasses import dataclass

from segmentd.ingest.names import printable
from segmentd.results.published import ResultFaults


@dataclass(frozen=True)
class WatchLoad:
    """How busy a watch is: files that have not ended, and what ended in the last minute."""

    waiting: int
    images_last_minute: int
    pixels_last_minute: int


@dataclass(frozen=True)
class WatchStatus:
    """How a watch fares, for people and for the API.

    `state` is `starting`, `active`, `paused`, `failed` or `unreachable`; `mode` is `events`, `poll` or,
    before the first look, `unknown`.
    """

    state: str
    state_reason: str
    mode: str
    mode_reason: str
    model: str
    done: int
    failed: int
    ignored: int
    warnings: tuple[str, ...]
    load: WatchLoad


def warning_of(faults: ResultFaults) -> str:
    """What is wrong with published results, and what to do; empty if nothing is."""
    if not faults.example:
        return ""
    return (
        f"results are missing ({faults.missing}) or damaged ({faults.damaged}), for example "
        f"{printable(faults.example)}: restore them, or touch the images to have them made anew"
    )
