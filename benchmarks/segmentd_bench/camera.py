"""A camera: frames as files, at a rate or all at once."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile

from segmentd_bench.subjects import Subject

DISTINCT_FRAMES = 4
STAGED_SUFFIX = ".part"
STAGED_S = 0.5


def frames(subject: Subject) -> list[bytes]:
    """A few different frames of the subject, each as the bytes of an uncompressed TIFF file."""
    height = subject.pixels.shape[1]
    shifts = [height * number // DISTINCT_FRAMES for number in range(DISTINCT_FRAMES)]
    return [_tiff(np.roll(subject.pixels[0], shift, axis=0)) for shift in shifts]


def _tiff(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    tifffile.imwrite(target, pixels, photometric="minisblack")
    return target.getvalue()


def names(count: int, prefix: str) -> list[str]:
    """File names of `count` frames, in their order."""
    return [f"{prefix}-{number:05}.tif" for number in range(count)]


def write(folder: Path, name: str, frame: bytes) -> float:
    """Write a frame under its final name; returns when it was closed (seconds of `time.monotonic`)."""
    with (folder / name).open("wb", buffering=0) as file:
        file.write(frame)
    return time.monotonic()


def shoot(folder: Path, wanted: Sequence[str], content: Sequence[bytes], rate_per_s: float) -> list[float]:
    """Write frames at a rate, as well as the disk lets it; returns when each was closed."""
    start = time.monotonic()
    closed = []
    for index, name in enumerate(wanted):
        time.sleep(max(0.0, start + index / rate_per_s - time.monotonic()))
        closed.append(write(folder, name, content[index % len(content)]))
    return closed


def stage(folder: Path, wanted: Sequence[str], content: Sequence[bytes]) -> None:
    """Write frames under names that the daemon does not take up, and let it see that they were closed.

    Otherwise it would wait for each file to be quiet for a while: what the daemon is set to, not what it
    can do.
    """
    for index, name in enumerate(wanted):
        write(folder, name + STAGED_SUFFIX, content[index % len(content)])
    time.sleep(STAGED_S)


def drop(folder: Path, wanted: Sequence[str]) -> float:
    """Give staged frames their final names, all at once; returns when it began."""
    start = time.monotonic()
    for name in wanted:
        (folder / (name + STAGED_SUFFIX)).rename(folder / name)
    return start
