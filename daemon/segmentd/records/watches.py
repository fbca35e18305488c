"""What is wanted of a watch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from segmentd.records.models import SegmentOptions
from segmentd.records.segmentations import ResultForm


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """One watched folder, resolved: absolute paths, defaults filled in. Times are in seconds.

    With a `marker_file` the folder counts as there only while it holds a file of that relative path.
    `move_to` is where images go that are done; None leaves them where they are.
    With `as_it_grows`, planes are segmented while their image is being written.
    """

    id: str
    folder: Path
    model: str
    results: Path
    include: tuple[str, ...] = ("*",)
    recursive: bool = True
    outputs: tuple[str, ...] = ("labels", "confidence")
    with_image: bool = False
    form: ResultForm = field(default_factory=ResultForm)
    settle_seconds: float = 2.0
    give_up_seconds: float = 10.0
    poll_seconds: float = 2.0
    poll: str = "auto"
    rescan_seconds: float = 60.0
    existing: str = "process"
    priority: int = 0
    options: SegmentOptions = field(default_factory=SegmentOptions)
    marker_file: str | None = None
    move_to: Path | None = None
    as_it_grows: bool = False
