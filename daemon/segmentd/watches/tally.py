"""What a watch has done since the daemon started, added up as images end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from segmentd import telemetry
from segmentd.records import Segmentation, SegmentationState
from segmentd.results.images import ImageOutcome
from segmentd.telemetry import Histogram, LastMinute


@dataclass
class Tally:
    """Counts of one watch; belongs to one event loop.

    Attributes
    ----------
    images : Counter of str
        Images by how they ended: `done`, `renamed`, `failed`, `vanished`.
    failures : Counter of str
        Images that failed, by `segmentd.errors.Reason`.
    planes, pixels : int
        Planes segmented, and their pixels.
    read_bytes, written_bytes : int
        Size of the images that were segmented, and of their results.
    device_seconds : dict of float
        How long devices worked on planes, by name.
    latency : Histogram
        From "file complete" to durable, of images that are done.
    last_minute : LastMinute
        Images and pixels of the last minute.
    """

    images: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    planes: int = 0
    pixels: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    device_seconds: dict[str, float] = field(default_factory=dict)
    latency: Histogram = field(default_factory=Histogram)
    last_minute: LastMinute = field(default_factory=LastMinute)

    def add(self, outcome: ImageOutcome, segmentations: Sequence[Segmentation]) -> None:
        """Count an image that ended."""
        made = [one for one in segmentations if one.state is SegmentationState.SUCCEEDED]
        renamed = any(one.state is SegmentationState.RENAMED for one in segmentations)
        state = "renamed" if renamed else outcome.state.value
        self.images[state] += 1
        telemetry.annotate(state=state, planes=len(made))
        if outcome.fault is not None and segmentations:
            self.failures[outcome.fault.reason] += 1
            telemetry.annotate(reason=outcome.fault.reason)
        pixels = sum(one.height * one.width for one in made)
        self.last_minute.add(pixels)
        if not made:
            return
        self.planes += len(made)
        self.pixels += pixels
        self.read_bytes += outcome.stamp.size_bytes if outcome.stamp else 0
        self.written_bytes += sum(max(0, file.size_bytes) for file in outcome.files)
        self.latency.add(made[-1].latency_seconds)
        for one in made:
            before = self.device_seconds.get(one.device, 0.0)
            self.device_seconds[one.device] = before + one.compute_seconds


def device_seconds(tallies: Iterable[Tally]) -> dict[str, float]:
    """How long devices worked on planes of some watches; one that shared a plane counts the whole of it."""
    total: dict[str, float] = {}
    for tally in tallies:
        for names, seconds in tally.device_seconds.items():
            for name in names.split("+"):
                total[name] = total.get(name, 0.0) + seconds
    return total
