"""The fast way to compute features: a tile becomes packets of 8 x 8 pixels for the forest.

A tile is first laid out in strips that are eight pixels high; then column after column of packets goes
through the steps of a `FeaturePlan`. What lies between two steps stays in the processor's cache: a few
columns, never a whole tile. The filters themselves are in `vector_blocks`.

The same surroundings give the same bits, whatever the tile, its size and the other features are.
No function here takes a lock or holds the GIL while it computes; a `Scratch` belongs to one thread.
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from segmentd.compute import feature_steps
from segmentd.compute.feature_plan import FeaturePlan
from segmentd.compute.normalize import Scale, to_float
from segmentd.compute.tiling import mirror
from segmentd.records import Region

Floats = npt.NDArray[np.float32]

PACKET_PX = 8
COLUMNS_AT_ONCE = 4


def packet_grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the packets that cover height x width pixels."""
    return -(-height // PACKET_PX), -(-width // PACKET_PX)


def aligned(shape: tuple[int, ...]) -> Floats:
    """An uninitialised float32 array that begins at a multiple of 64 bytes."""
    size = math.prod(shape)
    memory = np.empty(size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + size].reshape(shape)


class Scratch:
    """Working memory of one thread; grows to the largest tile it has seen.

    After `load` it holds a tile, ready for `compute`.
    """

    def __init__(self) -> None:
        self._memory = aligned((0,))
        self._arranged_for: tuple[int, ...] = ()
        self.grid = (0, 0)
        self.level: Floats = np.zeros(0, np.float32)

    def arrange(self, plan: FeaturePlan, height: int, width: int) -> None:
        """Make room for a tile of height x width pixels and its surroundings."""
        reach = plan.reach_px
        wanted = (height, width, *self._needs(plan))
        if wanted == self._arranged_for:
            return
        rows, columns = self.grid = packet_grid(height, width)
        strips = -(-(PACKET_PX * rows + 2 * reach + 7) // PACKET_PX)
        # A column more on either side, for Sobel filters
        strip_length = PACKET_PX * (columns + 2) + 2 * reach
        shapes = (
            (plan.channel_count, strips, strip_length, PACKET_PX),
            (PACKET_PX, strip_length),
            (COLUMNS_AT_ONCE + 2, PACKET_PX * strips, PACKET_PX),
            (plan.sobel_images, COLUMNS_AT_ONCE + 2, PACKET_PX * (rows + 1), PACKET_PX),
            (PACKET_PX, PACKET_PX),
        )
        sizes = [math.prod(shape) for shape in shapes]
        starts = [0, *accumulate(-(-size // 16) * 16 for size in sizes)]
        if starts[-1] > self._memory.size:
            self._memory = aligned((starts[-1],))
        self.strips, self.lines, self.turned, self.sobel_images, self.nowhere = (
            self._memory[start : start + size].reshape(shape)
            for start, size, shape in zip(starts, sizes, shapes, strict=False)
        )
        self._arranged_for = wanted

    def holds_tile_for(self, plan: FeaturePlan) -> bool:
        """Whether the tile was loaded for this plan, or one of the same needs."""
        return self._arranged_for[2:] == self._needs(plan)

    @staticmethod
    def _needs(plan: FeaturePlan) -> tuple[int, ...]:
        return plan.reach_px, plan.channel_count, plan.sobel_images


def grey_level(first_row: npt.NDArray[np.generic], scale: Scale | None) -> Floats:
    """A grey level that is common in each channel of a plane, after scaling: float32 (C,).

    Filters work on what remains without it, and it is added to their results: on a bright image of low
    contrast the digits of float32 would else be spent on the brightness. Any level will do that is the same
    for the whole plane; this is the median of its first row (C, X), which is there before the rest is.
    """
    level: Floats = np.median(to_float(first_row[:, None], scale), axis=(1, 2)).astype(np.float32)
    return level


def load(
    plan: FeaturePlan,
    pixels: npt.NDArray[np.generic],
    core: Region,
    border_px: int,
    scratch: Scratch,
    *,
    scale: Scale | None = None,
    level: Floats | None = None,
    first_row: int = 0,
    plane_height: int | None = None,
) -> None:
    """Cut a tile from a plane, scale it, and lay it out in `scratch`.

    The same as `tiling.cut` and `normalize.to_float` with the reach of the plan, in one pass.

    Parameters
    ----------
    plan : FeaturePlan
        What will be computed.
    pixels : array (C, Y, X)
        The whole plane, or a band of its rows.
    core : Region
        The pixels to compute features for, in the plane.
    border_px : int
        How many pixels around the core may be looked at; beyond that they are mirrored.
    scratch : Scratch
        Where the tile goes.
    scale : Scale, optional
        From `normalize.measure`.
    level : float32 array (C,), optional
        From `grey_level`, the same for all tiles of a plane; 0 by default.
    first_row, plane_height : int
        Where a band begins in its plane, and the height of the plane; by default it is the whole.
    """
    scratch.arrange(plan, core.height, core.width)
    height, width = pixels.shape[1:]
    height = height if plane_height is None else plane_height
    y_low, y_high = max(0, core.y - border_px), min(height, core.y + core.height + border_px)
    x_low, x_high = max(0, core.x - border_px), min(width, core.x + core.width + border_px)
    reach = plan.reach_px
    rows = mirror(core.y - reach, core.y + core.height + reach, y_low, y_high) - first_row
    columns = mirror(core.x - reach, core.x + core.width + reach, x_low, x_high)
    _lay_out(pixels, rows, columns, scale, level, scratch)


def _lay_out(
    pixels: npt.NDArray[np.generic],
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    scale: Scale | None,
    level: Floats | None,
    scratch: Scratch,
) -> None:
    """Rows and columns of `pixels` into strips; the outermost are repeated where strips go further."""
    channels, strips, length, _ = scratch.strips.shape
    scratch.level = np.zeros(channels, np.float32) if level is None else level
    if len(pixels) != channels or scratch.level.shape != (channels,):
        raise ValueError(
            f"pixels {pixels.shape}, level {scratch.level.shape}: the plan is for {channels} channels"
        )
    if rows.min() < 0 or rows.max() >= pixels.shape[1]:
        raise ValueError(f"the tile needs rows {rows.min()} to {rows.max()} of {pixels.shape[1]}")
    feature_steps.lay_out(
        pixels,
        rows[np.minimum(np.arange(strips * PACKET_PX), len(rows) - 1)],
        columns[np.clip(np.arange(length) - PACKET_PX, 0, len(columns) - 1)],
        np.zeros(channels, np.float32) if scale is None else scale.offset,
        np.ones(channels, np.float32) if scale is None else scale.divisor,
        scratch.level,
        scratch.lines,
        scratch.strips,
    )


def compute(plan: FeaturePlan, scratch: Scratch, first_column: int, out: Floats) -> None:
    """Compute some columns of packets of the tile that was loaded last.

    Calls go from left to right without a gap, beginning with column 0: Sobel filters reuse what the call
    before has left in `scratch`.

    Parameters
    ----------
    plan : FeaturePlan
        As for `load`.
    scratch : Scratch
        Holds the tile.
    first_column : int
        First of the columns to compute.
    out : float32 array (packet rows * columns, planes, 64), C-contiguous
        Packets of 8 x 8 pixels row by row, in each packet its planes, in each plane its pixels row by row.
        Pixels beyond the tile have some value or other.
    """
    if not scratch.holds_tile_for(plan):
        raise ValueError("no tile was loaded for this plan")
    rows, columns = scratch.grid
    count = len(out) // rows
    fits = first_column >= 0 and 0 < count <= columns - first_column and len(out) == rows * count
    if not fits or out.shape[1:] != (plan.plane_count, PACKET_PX**2) or not out.flags.c_contiguous:
        raise ValueError(f"packets {out.shape} do not fit {rows} x {columns} packets from {first_column}")
    feature_steps.carry_out(
        plan.steps,
        plan.weights,
        plan.reach_px,
        scratch.level,
        scratch.strips,
        scratch.turned,
        scratch.sobel_images,
        scratch.nowhere,
        out,
        rows,
        first_column,
        COLUMNS_AT_ONCE,
    )


def fill(plan: FeaturePlan, tile: Floats, out: Floats, scratch: Scratch, level: Floats | None = None) -> None:
    """Compute all packets of a tile.

    Parameters
    ----------
    plan : FeaturePlan
        What to compute.
    tile : float32 array (C, h + 2 r, w + 2 r)
        Finite pixels, with r = `plan.reach_px` pixels of surroundings on each side.
    out : float32 array (ceil(h / 8) * ceil(w / 8), planes, 64), C-contiguous
        As for `compute`.
    scratch : Scratch
        Working memory.
    level : float32 array (C,), optional
        As for `load`; 0 by default.
    """
    height, width = tile.shape[1:]
    scratch.arrange(plan, height - 2 * plan.reach_px, width - 2 * plan.reach_px)
    _lay_out(tile, np.arange(height), np.arange(width), None, level, scratch)
    compute(plan, scratch, 0, out)


def stack(plan: FeaturePlan, tile: Floats, level: Floats | None = None) -> Floats:
    """The feature stack of a tile: the values that `fill` gives, in the order of the features.

    Parameters
    ----------
    plan : FeaturePlan
        A plan that leaves out no feature.
    tile, level
        As for `fill`.

    Returns
    -------
    float32 array (F, h, w)
    """
    if np.any(plan.plane_of_feature < 0):
        raise ValueError("the plan leaves out features: it cannot make a whole feature stack")
    height, width = (edge - 2 * plan.reach_px for edge in tile.shape[1:])
    rows, columns = packet_grid(height, width)
    packets = aligned((rows * columns, plan.plane_count, PACKET_PX**2))
    fill(plan, tile, packets, Scratch(), level)
    out = np.empty((len(plan.plane_of_feature), height, width), np.float32)
    feature_steps.unpack(packets, plan.plane_of_feature, out)
    return out
