"""Covers a plane with tiles and cuts each one with its surroundings.

A plane is mirrored at its edges (scipy's `reflect`: d c b a | a b c d | d c b a), never at a tile's
edge, so that what is computed for a pixel does not depend on the tiling.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from segmentd.records import Region

MIN_TILE_PX = 16


def cover(height: int, width: int, tile_px: int) -> Iterator[Region]:
    """Core regions of at most `tile_px` x `tile_px` pixels that cover a plane, each pixel once."""
    if tile_px < MIN_TILE_PX:
        raise ValueError(f"tile_px = {tile_px}: must be >= {MIN_TILE_PX}")
    for y in range(0, height, tile_px):
        for x in range(0, width, tile_px):
            yield Region(y, x, min(tile_px, height - y), min(tile_px, width - x))


def mirror(start: int, stop: int, low: int, high: int) -> npt.NDArray[np.intp]:
    """Indices start..stop-1 folded into low..high-1 by mirroring at both ends, as often as needed."""
    size = high - low
    folded = (np.arange(start, stop) - low) % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded) + low


def needed_rows(start: int, stop: int, height: int, reach_px: int, border_px: int) -> tuple[int, int]:
    """Rows of the plane that `cut` reads for cores from row `start` to `stop`."""
    around = min(reach_px, border_px)
    # Mirroring at the plane's edge reads as far inwards as the filters reach outwards.
    low = 0 if start < reach_px else start - around
    high = height if stop + reach_px > height else stop + around
    if start < reach_px:
        high = max(high, min(height, reach_px))
    if stop + reach_px > height:
        low = min(low, max(0, height - reach_px))
    return low, high


def cut(
    pixels: npt.NDArray[np.generic],
    core: Region,
    reach_px: int,
    border_px: int,
    first_row: int = 0,
    plane_height: int | None = None,
) -> npt.NDArray[np.generic]:
    """Cut a tile with `reach_px` pixels of surroundings on each side.

    Parameters
    ----------
    pixels : array (C, Y, X)
        The whole plane, or a band of its rows (see `needed_rows`).
    core : Region
        The pixels the tile is responsible for, in the plane.
    reach_px : int
        How many pixels around the core the filters read.
    border_px : int
        How many pixels around the core may be looked at. Where this is less than `reach_px`, the rest
        is mirrored from what may be looked at, which shows as faint seams; a larger border than the
        reach changes nothing.
    first_row, plane_height : int
        Where a band begins in its plane, and the height of the plane; by default it is the whole.

    Returns
    -------
    array (C, core.height + 2 * reach_px, core.width + 2 * reach_px)
        A view where the surroundings lie inside the plane, else a copy.
    """
    height, width = pixels.shape[1:]
    height = height if plane_height is None else plane_height
    y_low, y_high = max(0, core.y - border_px), min(height, core.y + core.height + border_px)
    x_low, x_high = max(0, core.x - border_px), min(width, core.x + core.width + border_px)
    y_start, y_stop = core.y - reach_px, core.y + core.height + reach_px
    x_start, x_stop = core.x - reach_px, core.x + core.width + reach_px
    if y_start >= y_low and y_stop <= y_high and x_start >= x_low and x_stop <= x_high:
        return pixels[:, y_start - first_row : y_stop - first_row, x_start:x_stop]
    rows = mirror(y_start, y_stop, y_low, y_high) - first_row
    columns = mirror(x_start, x_stop, x_low, x_high)
    return pixels[:, rows[:, None], columns[None, :]]
