"""How a watch fares, for people and for the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segmentd.ingest.folder import FolderStatus
from segmentd.ingest.names import printable
from segmentd.results.images import ImageState
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
    before the first look, `unknown`. `parts` counts files that are part of another one's image.
    """

    state: str
    state_reason: str
    mode: str
    mode_reason: str
    model: str
    done: int
    failed: int
    ignored: int
    parts: int
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


def status_of(
    folder: FolderStatus,
    paused: bool,
    hold_reason: str,
    model: str,
    counts: Mapping[ImageState, int],
    warnings: tuple[str, ...],
    load: WatchLoad,
) -> WatchStatus:
    """Put together what folder, journal and watch tell; `hold_reason` is why files wait, or empty."""
    state, reason = folder.state, folder.state_reason
    if paused:
        state, reason = "paused", "paused on request; resume it to go on"
    elif hold_reason:
        state, reason = "failed", hold_reason
    return WatchStatus(
        state,
        reason,
        folder.mode if folder.state != "starting" else "unknown",
        folder.mode_reason,
        model,
        counts.get(ImageState.DONE, 0),
        counts.get(ImageState.FAILED, 0),
        counts.get(ImageState.IGNORED, 0),
        counts.get(ImageState.PART, 0),
        warnings,
        load,
    )
