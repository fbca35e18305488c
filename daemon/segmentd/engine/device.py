"""What a lane expects of a device that computes beside the CPU, and how it may fail."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segmentd.compute import crf
from segmentd.compute.fast_features import Floats
from segmentd.compute.normalize import Scale
from segmentd.engine.array_models import ArrayModel
from segmentd.engine.predictor import Cut, Predictor
from segmentd.records import Region

# What a device has in its memory: forests on filters, and networks.
DeviceModel = Predictor | ArrayModel

NOT_A_NUMBER = 255


class DeviceOutOfMemoryError(Exception):
    """There is no room on the device for a model, or for a batch of tiles."""

    def __init__(self, batch: int) -> None:
        super().__init__(f"out of memory with a batch of {batch}" if batch else "out of memory for the model")
        self.batch = batch


class NoRoomError(Exception):
    """A model cannot be brought now, since others are in use; the message says what a device has."""


class DeviceRefusesError(Exception):
    """The device is well, but cannot compute this model; the message says why."""


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

    def cut(self, reach_px: int) -> Cut:
        """The tile as the CPU's code takes it."""
        _, height, width = self.pixels.shape
        core = Region(reach_px, reach_px, height - 2 * reach_px, width - 2 * reach_px)
        return Cut(self.pixels, core, reach_px, self.scale, self.level, 0, height)


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

    def load(self, model: DeviceModel) -> None:
        """Bring a model to the device. Raises DeviceOutOfMemoryError, DeviceRefusesError, DeviceLostError."""

    def unload(self, model: DeviceModel) -> None:
        """Make room."""

    def prepared(self, batch: Batch) -> AbstractContextManager[Batch]:
        """Lay a batch out for `run`, for as long as the block lasts; any thread may, at any time."""

    def run(self, batch: Batch) -> list[DeviceTile]:
        """Compute a prepared batch. Raises DeviceOutOfMemoryError, DeviceLostError."""

    def scores(self, model: Predictor, tile: BatchTile) -> Floats:
        """As `Predictor.scores`, of a tile. Raises as `load`."""

    def evaluate(self, model: ArrayModel, values: Floats) -> Floats:
        """What a network makes of arrays, each for itself. Raises as `load`."""

    def marginals(self, window: crf.Window, parameters: crf.Parameters) -> Floats:
        """As `segmentd.compute.crf.infer`. Raises as `load`."""

    def close(self) -> None:
        """Give back what it holds; it may be opened again."""
