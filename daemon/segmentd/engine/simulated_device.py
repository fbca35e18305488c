"""A device that is none: it computes with the CPU's code and fails on request, for tests and rehearsals."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segmentd.engine.device import DeviceLostError, DeviceOutOfMemoryError, DeviceTile
from segmentd.engine.predictor import Predictor
from segmentd.engine.segmenter import Band, PlaneJob
from segmentd.errors import ConfigurationError
from segmentd.records import Region

VARIABLE = "SEGMENTD_FAKE_DEVICE"
MAX_BATCH = 8
_FORMS = "oom_above:N, oom_always, lost_after:N, nan_after:N, memory:BYTES or slow:SECONDS"
FAULTS = ("oom_above", "lost_after", "nan_after", "memory")


@dataclass(frozen=True)
class Fault:
    """How the device fails.

    Attributes
    ----------
    kind : str
        `oom_above`: out of memory with more than `number` tiles at once; `oom_always`: with any;
        `lost_after`: gone after `number` batches, until it is opened again; `nan_after`: after so many
        batches its confidence is not a number, until it is opened again; `memory`: models have `number` bytes
        together; `slow`: each batch takes `number` seconds longer.
    number : float
        As the kind has it.
    """

    kind: str
    number: float = 0.0


def from_environment() -> list[SimulatedDevice]:
    """The devices that SEGMENTD_FAKE_DEVICE asks for, with commas between them; none where it is not set.

    Raises
    ------
    ConfigurationError
        The value has none of the known forms.
    """
    value = os.environ.get(VARIABLE, "")
    faults = [parse(part) for part in value.split(",")] if value else []
    return [SimulatedDevice(fault, number=number) for number, fault in enumerate(faults)]


def parse(value: str) -> Fault:
    """Read a value of SEGMENTD_FAKE_DEVICE."""
    if value == "oom_always":
        return Fault(value)
    kinds = "|".join(FAULTS)
    match = re.fullmatch(rf"({kinds}):(\d{{1,15}})|(slow):(\d{{1,9}}(?:\.\d{{1,9}})?)", value)
    if match is None:
        raise ConfigurationError([f"{VARIABLE} = {json.dumps(value)}: must be {_FORMS}"])
    return Fault(match[1] or match[3], float(match[2] or match[4]))


class SimulatedDevice:
    """A device on the CPU; the attributes are those of `segmentd.engine.device.Device`."""

    def __init__(self, fault: Fault, sleep: Callable[[float], None] = time.sleep, number: int = 0) -> None:
        self.name = f"simulated:{number}"
        self.display_name = f"simulated device ({fault.kind})"
        self.max_batch = MAX_BATCH
        self._fault = fault
        self._sleep = sleep
        self._batches = 0
        self._loaded: set[Predictor] = set()

    def open(self) -> None:
        """Begin anew."""
        self._batches = 0
        self._loaded.clear()

    def free_bytes(self) -> int | None:
        """What is left of the memory that the fault gives it."""
        if self._fault.kind != "memory":
            return None
        return int(self._fault.number) - sum(model.size_bytes for model in self._loaded)

    def load(self, model: Predictor) -> None:
        """Keep a model in mind."""
        free = self.free_bytes()
        if free is not None and model.size_bytes > free:
            raise DeviceOutOfMemoryError(0)
        self._loaded.add(model)

    def unload(self, model: Predictor) -> None:
        """Forget a model."""
        self._loaded.discard(model)

    def run(self, job: PlaneJob, band: Band, cores: Sequence[Region]) -> list[DeviceTile]:
        """Compute with the CPU's code, and fail where the fault says so."""
        if job.predictor not in self._loaded:
            raise DeviceLostError("the model is not on the device")
        kind, number = self._fault.kind, self._fault.number
        if kind == "oom_always" or (kind == "oom_above" and len(cores) > number):
            raise DeviceOutOfMemoryError(len(cores))
        if kind == "lost_after" and self._batches >= number:
            raise DeviceLostError("as SEGMENTD_FAKE_DEVICE asks for")
        if kind == "slow":
            self._sleep(number)
        broken = kind == "nan_after" and self._batches >= number
        self._batches += 1
        return [_tile(job, band, core, broken) for core in cores]


def _tile(job: PlaneJob, band: Band, core: Region, broken: bool) -> DeviceTile:
    done = job.run_tile(band, core)
    if broken:
        wrong = np.full(done.confidence.shape, math.nan, np.float32)
        return DeviceTile(core, np.zeros_like(done.labels), wrong)
    return DeviceTile(core, done.labels, done.confidence.astype(np.float32))
