"""What a lane expects of a device that computes beside the CPU, and how it may fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segmentd.engine.predictor import Predictor
from segmentd.engine.segmenter import Band, PlaneJob
from segmentd.records import Region


class DeviceOutOfMemoryError(Exception):
    """There is no room on the device for a model, or for a batch of tiles."""

    def __init__(self, batch: int) -> None:
        super().__init__(f"out of memory with a batch of {batch}" if batch else "out of memory for the model")
        self.batch = batch


class NoRoomError(Exception):
    """A model cannot be brought now, since others are in use; the message says what a device has."""


class DeviceLostError(Exception):
    """The device is gone, or does what it should not; the message says how that showed."""


@dataclass(frozen=True)
class DeviceTile:
    """One core region: labels uint8 (h, w), confidence in percent as float32 (h, w).

    The confidence is not rounded yet, so that values which are not numbers can be seen.
    """

    region: Region
    labels: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]


class Device(Protocol):
    """A device. It is called by one thread at a time.

    Attributes
    ----------
    name : str
        What results call it, such as `cuda:0`.
    display_name : str
        What it calls itself.
    max_batch : int
        Most tiles that are worth computing together.
    """

    name: str
    display_name: str
    max_batch: int

    def open(self) -> None:
        """Begin anew, with nothing loaded. Raises DeviceLostError while there is no device."""

    def free_bytes(self) -> int | None:
        """What models may still take on the device, whoever uses the rest; None where it cannot tell."""

    def load(self, model: Predictor) -> None:
        """Bring a model to the device. Raises DeviceOutOfMemoryError, DeviceLostError."""

    def unload(self, model: Predictor) -> None:
        """Make room."""

    def run(self, job: PlaneJob, band: Band, cores: Sequence[Region]) -> list[DeviceTile]:
        """Compute a batch of tiles with the job's model. Raises DeviceOutOfMemoryError, DeviceLostError."""
