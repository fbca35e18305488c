"""Smaller levels of large planes, each half the one above, made while the plane is being written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ABOVE_EDGE = 4096  # planes with no longer edge need no smaller levels: viewers read them whole
SMALLEST_EDGE = 1024  # the last level is no larger


def level_shapes(height: int, width: int, count: int | None = None) -> list[tuple[int, int]]:
    """Sizes of the levels of a plane, itself first; one where no edge is above `ABOVE_EDGE`, or `count`.

    Examples
    --------
    >>> level_shapes(16_000, 9001)
    [(16000, 9001), (8000, 4501), (4000, 2251), (2000, 1126), (1000, 563)]
    >>> level_shapes(4096, 4096)
    [(4096, 4096)]
    """
    shapes = [(height, width)]
    if count is not None:
        while len(shapes) < count:
            shapes.append(_half(shapes[-1]))
    elif max(height, width) > ABOVE_EDGE:
        while max(shapes[-1]) > SMALLEST_EDGE:
            shapes.append(_half(shapes[-1]))
    return shapes


def _half(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // 2), -(-shape[1] // 2)


def halved(pixels: npt.NDArray[np.generic], *, labels: bool) -> npt.NDArray[np.generic]:
    """Make one pixel of every 2 x 2: the mean, or for labels the most frequent one.

    Of labels that are equally frequent the upper left one counts, or else the upper right one. At an odd
    edge the last row or column counts twice.

    Parameters
    ----------
    pixels : array (Y, X)
        Integers or float32.
    labels : bool
        Whether the values are names rather than amounts.
    """
    height, width = pixels.shape
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2)), mode="edge")
    corners = [pixels[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    return _mode(*corners) if labels else _mean(corners)


def _mode(
    a: npt.NDArray[np.generic],
    b: npt.NDArray[np.generic],
    c: npt.NDArray[np.generic],
    d: npt.NDArray[np.generic],
) -> npt.NDArray[np.generic]:
    """Return a where it is among the others; else what two of the others are; else a."""
    without_a = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
    return np.where((a == b) | (a == c) | (a == d), a, without_a)


def _mean(corners: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.generic]:
    dtype = corners[0].dtype
    if dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):  # the image's own infinities
            mean: npt.NDArray[np.generic] = sum(corner * dtype.type(0.25) for corner in corners)
            return mean
    total: npt.NDArray[Any] = corners[0].astype(np.uint16 if dtype == np.uint8 else np.int64)
    for corner in corners[1:]:
        total += corner
    total += 2
    return (total >> 2).astype(dtype)


class SmallerLevels:
    """The smaller levels of one plane of one channel, from its rows as they come.

    At most `block` rows of each level are held.

    Parameters
    ----------
    shapes : sequence of (int, int)
        What `level_shapes` gives.
    block : int
        Rows that are wanted at once; even, and a multiple of it comes each time but the last.
    labels : bool
        See `halved`.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], block: int, *, labels: bool) -> None:
        self._heights = [height for height, _ in shapes]
        self._block = block
        self._labels = labels
        self._waiting: list[list[npt.NDArray[np.generic]]] = [[] for _ in shapes]
        self._seen = [0] * len(shapes)

    def add(
        self, rows: npt.NDArray[np.generic], level: int = 1
    ) -> Iterator[tuple[int, npt.NDArray[np.generic]]]:
        """Take `block` rows of the level above `level`, or its last; gives levels with their next rows."""
        if level == len(self._heights):
            return
        waiting = self._waiting[level]
        waiting.append(halved(rows, labels=self._labels))
        self._seen[level] += len(waiting[-1])
        if sum(map(len, waiting)) == self._block or self._seen[level] == self._heights[level]:
            whole = np.concatenate(waiting)
            waiting.clear()
            yield level, whole
            yield from self.add(whole, level + 1)
