"""Cells of a network to features of pixels: packets for the forest, or single pixels for training.

Between cells values are interpolated linearly, along x and then along y; the middle of cell k (see
`deep_sets`) is at pixel (k + 1/2) * stride - 1/2. Both functions give the same bits for the same pixel.
"""

# Numba compiles these by the types of their arguments
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import numpy as np
from numba import njit

MARGIN_CELLS = 1
"""Cells around those of a tile, which its outermost pixels are interpolated with."""
_EDGE = 8  # pixels of a packet's edge


@njit(nogil=True, cache=True, error_model="numpy")
def _neighbour(pixel, stride):
    """The cell before a pixel, counted from the margin, and the share of the cell behind."""
    if stride == 1:
        return pixel + MARGIN_CELLS, np.float32(0.0)
    place = 2 * pixel + 1 - stride + 2 * stride * MARGIN_CELLS
    before = place // (2 * stride)
    return before, np.float32((place - 2 * stride * before) / (2.0 * stride))


@njit(nogil=True, cache=True, error_model="numpy")
def _between(before, behind, share):
    return before + (behind - before) * share


@njit(nogil=True, cache=True, error_model="numpy")
def fill(cells, planes, stride, first_column, columns, out):
    """Compute some columns of packets of a tile.

    Parameters
    ----------
    cells : float32 array (P, h + 2, w + 2)
        The cells of a tile whose edges are multiples of 8 pixels, with a margin.
    planes : int array (n,)
        Which of the P a packet holds.
    stride : int
        Pixels between cells: 1, 2 or 4.
    first_column, columns : int
        The columns of packets to compute.
    out : float32 array (packet rows * columns, n, 64)
        Packets of 8 x 8 pixels row by row.
    """
    along_x = np.empty((_EDGE // 2 + 2, _EDGE), np.float32)
    # The same in every packet, but for the cell that it begins in
    before, share = np.empty(_EDGE, np.int64), np.empty(_EDGE, np.float32)
    for i in range(_EDGE):
        before[i], share[i] = _neighbour(i, stride)
    for packet in range(out.shape[0]):
        y, x = packet // columns * _EDGE, (first_column + packet % columns) * _EDGE
        for n in range(planes.size):
            source, target = cells[planes[n]], out[packet, n]
            if stride == 1:
                for i in range(_EDGE):
                    for j in range(_EDGE):
                        target[i * _EDGE + j] = source[y + i + MARGIN_CELLS, x + j + MARGIN_CELLS]
                continue
            for k in range(_EDGE // stride + 2):
                line = source[y // stride + k]
                for j in range(_EDGE):
                    left = x // stride + before[j]
                    along_x[k, j] = _between(line[left], line[left + 1], share[j])
            for i in range(_EDGE):
                upper, lower = along_x[before[i]], along_x[before[i] + 1]
                for j in range(_EDGE):
                    target[i * _EDGE + j] = _between(upper[j], lower[j], share[i])


@njit(nogil=True, cache=True, error_model="numpy")
def sample(cells, stride, ys, xs):
    """Features of single pixels of a tile: float32 (len(ys), P); `cells` as for `fill`."""
    out = np.empty((ys.size, cells.shape[0]), np.float32)
    for number in range(ys.size):
        y, share_y = _neighbour(ys[number], stride)
        x, share_x = _neighbour(xs[number], stride)
        for plane in range(cells.shape[0]):
            source = cells[plane]
            if stride == 1:
                out[number, plane] = source[y, x]
                continue
            upper = _between(source[y, x], source[y, x + 1], share_x)
            lower = _between(source[y + 1, x], source[y + 1, x + 1], share_x)
            out[number, plane] = _between(upper, lower, share_y)
    return out
