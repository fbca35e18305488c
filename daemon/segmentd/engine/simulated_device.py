"""A device that is none: it computes with the CPU's code and fails on request, for tests and rehearsals.

The daemon runs it where cards run, too: in a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from segmentd.compute import crf
from segmentd.compute.fast_features import Floats
from segmentd.engine.array_models import ArrayModel, Compute
from segmentd.engine.device import (
    NOT_A_NUMBER,
    Batch,
    BatchTile,
    DeviceLostError,
    DeviceModel,
    DeviceOutOfMemoryError,
    DeviceTile,
)
from segmentd.engine.predictor import Predictor
from segmentd.engine.refiner import infer_here
from segmentd.errors import ConfigurationError

VARIABLE = "SEGMENTD_FAKE_DEVICE"
MAX_BATCH = 8
HANG_SECONDS = 24 * 3600.0
_FORMS = (
    "oom_above:N, oom_always, lost_after:N, nan_after:N, abort_after:N, hang_after:N, memory:BYTES or "
    "slow:SECONDS"
)
FAULTS = ("oom_above", "lost_after", "nan_after", "abort_after", "hang_after", "memory")


@dataclass(frozen=True)
class Fault:
    """How the device fails.

    Attributes
    ----------
    kind : str
        `oom_above`: out of memory with more than `number` tiles at once; `oom_always`: with any;
        `lost_after`: gone after `number` batches, until it is opened again; `nan_after`: after so many
        batches its confidence is not a number, until it is opened again; `memory`: models have `number` bytes
        together; `slow`: each batch takes `number` seconds longer; `abort_after`, `hang_after`: after so many
        batches its process aborts, or never answers.
    number : float
        As the kind has it.
    """

    kind: str
    number: float = 0.0


def from_environment() -> list[str]:
    """The faults of the devices that SEGMENTD_FAKE_DEVICE asks for; none where it is not set.

    Raises
    ------
    ConfigurationError
        The value has none of the known forms.
    """
    value = os.environ.get(VARIABLE, "")
    faults = value.split(",") if value else []
    for fault in faults:
        parse(fault)
    return faults


def parse(value: str) -> Fault:
    """Read a value of SEGMENTD_FAKE_DEVICE."""
    if value == "oom_always":
        return Fault(value)
    kinds = "|".join(FAULTS)
    match = re.fullmatch(rf"({kinds}):(\d{{1,15}})|(slow):(\d{{1,9}}(?:\.\d{{1,9}})?)", value)
    if match is None:
        raise ConfigurationError([f"{VARIABLE} = {json.dumps(value)}: must be {_FORMS}"])
    return Fault(match[1] or match[3], float(match[2] or match[4]))


def names(fault: Fault, number: int) -> tuple[str, str]:
    """What results and people call the device."""
    return f"simulated:{number}", f"simulated device ({fault.kind})"


class SimulatedDevice:
    """A device on the CPU; the attributes are those of `segmentd.engine.device.Device`."""

    def __init__(self, fault: Fault, sleep: Callable[[float], None] = time.sleep, number: int = 0) -> None:
        self.name, self.display_name = names(fault, number)
        self.max_batch = MAX_BATCH
        self._fault = fault
        self._sleep = sleep
        self._batches = 0
        self._loaded: dict[DeviceModel, Compute | None] = {}

    def open(self) -> None:
        """Begin anew."""
        self._batches = 0
        self._loaded.clear()

    def free_bytes(self) -> int | None:
        """What is left of the memory that the fault gives it."""
        if self._fault.kind != "memory":
            return None
        return int(self._fault.number) - sum(model.size_bytes for model in self._loaded)

    def load(self, model: DeviceModel) -> None:
        """Keep a model in mind."""
        free = self.free_bytes()
        if free is not None and model.size_bytes > free:
            raise DeviceOutOfMemoryError(0)
        self._loaded[model] = None if isinstance(model, Predictor) else model.on_cpu()

    def unload(self, model: DeviceModel) -> None:
        """Forget a model."""
        self._loaded.pop(model, None)

    def prepared(self, batch: Batch) -> AbstractContextManager[Batch]:
        """As it is."""
        return nullcontext(batch)

    def run(self, batch: Batch) -> list[DeviceTile]:
        """Compute with the CPU's code, and fail where the fault says so."""
        if batch.model not in self._loaded:
            raise DeviceLostError("the model is not on the device")
        broken = self._begin(len(batch.tiles))
        return [_tile(batch, tile, broken) for tile in batch.tiles]

    def scores(self, model: Predictor, tile: BatchTile) -> Floats:
        """As `run`, for the probabilities of classes in one tile."""
        if model not in self._loaded:
            raise DeviceLostError("the model is not on the device")
        broken = self._begin(1)
        found = model.scores(tile.cut(model.reach_px))
        return np.full_like(found, np.nan) if broken else found

    def evaluate(self, model: ArrayModel, values: Floats) -> Floats:
        """As `run`, for a network; each array counts as a tile."""
        compute = self._loaded.get(model)
        if compute is None:
            raise DeviceLostError("the model is not on the device")
        broken = self._begin(len(values))
        found = compute(values)
        return np.full_like(found, np.nan) if broken else found

    def marginals(self, window: crf.Window, parameters: crf.Parameters) -> Floats:
        """As `run`, for a window, by what the CPU would use."""
        broken = self._begin(1)
        found = infer_here(window, parameters)
        return np.full_like(found, np.nan) if broken else found

    def _begin(self, tiles: int) -> bool:
        """Fail, or count a batch; returns whether what it makes shall be no numbers."""
        kind, number = self._fault.kind, self._fault.number
        if kind == "oom_always" or (kind == "oom_above" and tiles > number):
            raise DeviceOutOfMemoryError(tiles)
        broken = kind.endswith("_after") and self._batches >= number
        if broken and kind == "lost_after":
            raise DeviceLostError("as SEGMENTD_FAKE_DEVICE asks for")
        if broken and kind == "abort_after":
            os.abort()
        if broken and kind == "hang_after":
            self._sleep(HANG_SECONDS)
        if kind == "slow":
            self._sleep(number)
        self._batches += 1
        return broken

    def close(self) -> None:
        """Forget all models."""
        self._loaded.clear()


def _tile(batch: Batch, tile: BatchTile, broken: bool) -> DeviceTile:
    labels, confidence = batch.model.run(tile.cut(batch.model.reach_px))
    if broken:
        confidence = np.full_like(confidence, NOT_A_NUMBER)
    return DeviceTile(labels, confidence)
