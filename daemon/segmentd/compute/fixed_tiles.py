"""Covers a plane with tiles of one fixed size, as networks want them.

The layout is that of ZEISS' cztile (`AlmostEqualBorderFixedTotalAreaStrategy`): what the tiles have too
much is spread evenly over the borders between them. Each axis is laid out by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Span:
    """One tile along one axis: it reads `size` pixels from `start` and answers for `first` to `stop` - 1.

    `start` is negative and `start + size` beyond the plane where the plane is smaller than a tile.
    """

    start: int
    size: int
    first: int
    stop: int


def spans(length: int, size: int, border_px: int) -> list[Span]:
    """Lay out tiles along an axis.

    Parameters
    ----------
    length : int
        Of the plane, in pixels.
    size : int
        Of a tile with its borders, in pixels.
    border_px : int
        At least this much lies between the pixels that a tile answers for and its edge, but for the
        plane's own edges.

    Raises
    ------
    ValueError
        Where nothing of a tile is left between its borders.
    """
    if border_px < 0 or 2 * border_px >= size:
        raise ValueError(f"a border of {border_px} px leaves nothing of a tile of {size} px")
    if length <= size:
        return [Span(-((size - length) // 2), size, 0, length)]
    count = -(-max(0, length - 2 * (size - border_px)) // (size - 2 * border_px)) + 2
    spare = 2 * (size - border_px) + (count - 2) * (size - 2 * border_px) - length
    inner = 2 * (count - 1)  # borders between tiles, two at each place
    # Borders 1..k together, for every k. In floating point, so that the tiles are cztile's to the pixel.
    sums = [math.floor(k * (spare / inner + border_px)) for k in range(inner + 1)]
    edges = [0, *(k * size - sums[2 * k - 1] for k in range(1, count)), length]
    starts = [*(k * size - sums[2 * k] for k in range(count - 1)), length - size]
    return [Span(starts[k], size, edges[k], edges[k + 1]) for k in range(count)]


def cut(
    pixels: npt.NDArray[np.generic], rows: Span, columns: Span, first_row: int, height: int
) -> npt.NDArray[np.generic]:
    """The pixels that a tile reads: (C, rows.size, columns.size), edge pixels repeated beyond the plane.

    `pixels` (C, h, X) are rows of a plane of `height` rows, from `first_row` on.
    """
    width = pixels.shape[2]
    y, x = rows.start - first_row, columns.start
    if rows.start >= 0 and rows.start + rows.size <= height and x >= 0 and x + columns.size <= width:
        return pixels[:, y : y + rows.size, x : x + columns.size]
    inside_y = np.clip(np.arange(rows.start, rows.start + rows.size), 0, height - 1) - first_row
    inside_x = np.clip(np.arange(x, x + columns.size), 0, width - 1)
    return pixels[:, inside_y[:, None], inside_x[None, :]]
