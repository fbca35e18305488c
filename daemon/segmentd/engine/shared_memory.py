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


class SharedMemory:
    """The daemon's side. It grows to what was needed most, and has no name to be left over."""

    def __init__(self) -> None:
        self.descriptor = -1
        self._bytes: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    def room(self, size: int) -> npt.NDArray[np.uint8]:
        """The first `size` bytes."""
        if self.descriptor < 0:
            self.descriptor = os.memfd_create("segmentd-tiles", os.MFD_CLOEXEC)
        if size > self._bytes.size:
            os.ftruncate(self.descriptor, size)
            self._bytes = np.frombuffer(mmap.mmap(self.descriptor, size), np.uint8)
        return self._bytes[:size]

    def close(self) -> None:
        """Give it back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor, self._bytes = -1, np.empty(0, np.uint8)


def places(sizes: Sequence[int]) -> list[int]:
    """Where pieces of these sizes begin, one behind the other, and where the last one ends."""
    found = [0]
    for size in sizes:
        found.append(found[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return found


def described(dtype: np.dtype[Any], shape: Sequence[int], place: int) -> dict[str, Any]:
    """What `array_at` finds an array by."""
    return {"dtype": dtype.name, "shape": list(shape), "place": place}


def array_at(memory: npt.NDArray[np.uint8], where: dict[str, Any]) -> npt.NDArray[Any]:
    """The array that lies at a place in the memory, not a copy."""
    dtype, shape, place = np.dtype(where["dtype"]), where["shape"], where["place"]
    size = math.prod(shape) * dtype.itemsize
    found: npt.NDArray[Any] = memory[place : place + size].view(dtype).reshape(shape)
    return found
