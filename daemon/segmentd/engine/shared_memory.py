"""Memory that the daemon and a device's process both see: arrays go through it without being copied twice."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT = 64
Place = dict[str, Any]
"""Where an array lies: `array_at` finds it again, also in another process."""


class SharedMemory:
    """The daemon's side. It grows to what was needed most, and has no name to be left over."""

    def __init__(self) -> None:
        self.descriptor = -1
        self.bytes: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    def lay_out(self, arrays: Sequence[tuple[np.dtype[Any], Sequence[int]]]) -> list[Place]:
        """Have room for arrays of these types and shapes, one behind the other; returns where."""
        places, end = [], 0
        for dtype, shape in arrays:
            places.append({"dtype": dtype.name, "shape": list(shape), "place": end})
            end += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        if self.descriptor < 0:
            self.descriptor = os.memfd_create("segmentd-tiles", os.MFD_CLOEXEC)
        if end > self.bytes.size:
            os.ftruncate(self.descriptor, end)
            self.bytes = np.frombuffer(mmap.mmap(self.descriptor, end), np.uint8)
        return places

    def close(self) -> None:
        """Give it back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor, self.bytes = -1, np.empty(0, np.uint8)


def array_at(memory: npt.NDArray[np.uint8], where: Place) -> npt.NDArray[Any]:
    """The array that lies at a place in the memory, not a copy."""
    dtype, shape, place = np.dtype(where["dtype"]), where["shape"], where["place"]
    size = math.prod(shape) * dtype.itemsize
    found: npt.NDArray[Any] = memory[place : place + size].view(dtype).reshape(shape)
    return found
