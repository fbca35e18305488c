"""Where the pixels of a plane come from: memory, or a file that is read band by band."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Results are written in tiles of this edge; bands end where tiles do.
BAND_STEP_ROWS = 256
BAND_PIXELS = 1 << 24


class PlaneSource(Protocol):
    """Pixels of one plane that can be read by rows."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, Y, X)."""

    @property
    def band_rows(self) -> int:
        """How many rows to hold at once; Y where the plane is in memory anyway."""

    def rows(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Rows start..stop-1 of all channels: array (C, stop - start, X)."""


@dataclass(frozen=True)
class ArraySource:
    """A plane in memory: array (C, Y, X)."""

    pixels: npt.NDArray[np.generic]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, Y, X)."""
        channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def band_rows(self) -> int:
        """All rows."""
        return self.shape[1]

    def rows(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """A view of rows start..stop-1."""
        return self.pixels[:, start:stop]


class Stack:
    """The planes of one Z stack, for models that look at several at once. Belongs to one caller at a time.

    Parameters
    ----------
    depth : int
        Planes of the stack.
    read : callable
        Gives the source of a plane.
    """

    def __init__(self, depth: int, read: Callable[[int], PlaneSource]) -> None:
        self.depth = depth
        self._read = read
        self._planes: dict[int, PlaneSource] = {}
        # What was computed for planes that are still to come; only the model's job knows what.
        self.results: dict[Hashable, Any] = {}

    def plane(self, z: int) -> PlaneSource:
        """Plane `z`, read once until it is forgotten."""
        if z not in self._planes:
            self._planes[z] = self._read(z)
        return self._planes[z]

    def forget(self, below: int) -> None:
        """Let go of the planes below one, and of all results."""
        self._planes = {z: plane for z, plane in self._planes.items() if z >= below}
        self.results.clear()


@dataclass(frozen=True)
class StackPlane:
    """A plane of a stack: a source by itself, which knows its neighbours."""

    stack: Stack
    z: int

    @property
    def _source(self) -> PlaneSource:
        return self.stack.plane(self.z)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, Y, X)."""
        return self._source.shape

    @property
    def band_rows(self) -> int:
        """As the plane's own."""
        return self._source.band_rows

    def rows(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Rows start..stop-1 of the plane."""
        return self._source.rows(start, stop)


def streamed_band_rows(width: int) -> int:
    """Rows of a band that holds about 16 million pixels."""
    return max(1, BAND_PIXELS // (width * BAND_STEP_ROWS)) * BAND_STEP_ROWS


def bands(source: PlaneSource, step: int = 1) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of each band, from the top; bands begin at multiples of `step` rows."""
    height = source.shape[1]
    rows = -(-source.band_rows // step) * step
    for start in range(0, height, rows):
        yield start, min(start + rows, height)
