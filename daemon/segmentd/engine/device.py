"""What a lane expects of a device that computes beside the CPU, and how it may fail."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segmentd.compute.fast_features import Floats
from segmentd.compute.normalize import Scale
from segmentd.engine.predictor import Predictor

NOT_A_NUMBER = 255


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
class BatchTile:
    """A tile of some plane.

    Attributes
    ----------
    pixels : array (C, h + 2 reach, w + 2 reach)
        With what the model reads around them.
    scale, level
        Those of the plane, as for `segmentd.compute.fast_features.load`.
    """

    pixels: npt.NDArray[np.generic]
    scale: Scale | None
    level: Floats


@dataclass(frozen=True)
class Batch:
    """Tiles, of one plane or several, that are computed together with a model on the device."""

    model: Predictor
    tiles: Sequence[BatchTile]


@dataclass(frozen=True)
class DeviceTile:
    """Labels and confidence in percent of a tile: uint8 (h, w); confidence that is no number is 255."""

    labels: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.uint8]


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

    def prepared(self, batch: Batch) -> AbstractContextManager[Batch]:
        """Lay a batch out for `run`, for as long as the block lasts; any thread may, at any time."""

    def run(self, batch: Batch) -> list[DeviceTile]:
        """Compute a prepared batch. Raises DeviceOutOfMemoryError, DeviceLostError."""

    def close(self) -> None:
        """Give back what it holds; it may be opened again."""
