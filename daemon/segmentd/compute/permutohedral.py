"""Gaussian filtering of many-dimensional points on the permutohedral lattice, in time linear in the points.

Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice", Computer Graphics
Forum 29 (2010). Points are spread to the corners of the simplex of the lattice A*_d that they lie in,
the corners are blurred along the d + 1 directions of the lattice, and every point gathers from its corners.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int32]

# A point moved by so many standard deviations along its first or second feature meets the same lattice.
PERIODS = (3.0**0.5, 3.0)

_NOWHERE = -1
_SPREAD = 1664525  # multiplier of a linear congruential generator: neighbouring keys land far apart


@dataclass(frozen=True)
class Lattice:
    """Where N points lie on a lattice of M corners.

    Attributes
    ----------
    corners : int32 array (N, d + 1)
        The corners of each point's simplex.
    shares : float32 array (N, d + 1)
        How near each of them is: barycentric coordinates, sum 1.
    neighbours : int32 array (d + 1, M, 2)
        The corners next to each corner in each direction; M where there is none.
    """

    corners: Indices
    shares: Floats
    neighbours: Indices

    def add(self, values: Floats, before: Floats, after: Floats, out: Floats) -> None:
        """Add to each point what all points say, weighted by a Gaussian of their distance.

        Releases the GIL. The Gaussian is right but for a factor common to all points.

        Parameters
        ----------
        values, out : float32 array (N, K)
            What each point says; what to add to.
        before, after : float32 array (N,)
            What to multiply each point by on the way in and on the way out.
        """
        _add(self.corners, self.shares, self.neighbours, values, before, after, out)


def build(features: Floats) -> Lattice:
    """Place points on the lattice; releases the GIL.

    Parameters
    ----------
    features : float32 array (N, d)
        The points, in units of the standard deviation of the Gaussian along each axis.
    """
    return Lattice(*_build(features, axis_scale(features.shape[1])))


def axis_scale(dimensions: int) -> Floats:
    """What the features of points are multiplied by before they are embedded: float32 (d,)."""
    axes = np.arange(dimensions)
    # The diagonal of the embedding, times the standard deviation that splat, blur and slice have together.
    scale = np.sqrt(2.0 / 3.0) * (dimensions + 1) / np.sqrt((axes + 1.0) * (axes + 2.0))
    return np.asarray(scale, np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def _build(features, scale):
    points, dimensions = features.shape
    corners = np.empty((points, dimensions + 1), np.int32)
    shares = np.empty((points, dimensions + 1), np.float32)
    keys = np.empty((max(16, points // 16), dimensions), np.int32)
    table = np.full(_table_size(keys.shape[0]), _NOWHERE, np.int32)
    count = 0
    base, place = np.empty(dimensions + 1, np.int32), np.empty(dimensions + 1, np.int32)
    last_base, last_place = np.empty_like(base), np.full_like(place, _NOWHERE)
    elevated, ordered = np.empty(dimensions + 1, np.float32), np.empty(dimensions + 1, np.float32)
    key = np.empty(dimensions, np.int32)
    for point in range(points):
        _locate(features[point], scale, base, place, shares[point], elevated, ordered)
        same = True
        for axis in range(dimensions + 1):
            same &= base[axis] == last_base[axis] and place[axis] == last_place[axis]
            last_base[axis], last_place[axis] = base[axis], place[axis]
        if same:  # as the pixel before: nothing to look up
            for corner in range(dimensions + 1):
                corners[point, corner] = corners[point - 1, corner]
            continue
        for corner in range(dimensions + 1):
            for axis in range(dimensions):
                wrap = 0 if place[axis] <= dimensions - corner else dimensions + 1
                key[axis] = base[axis] + corner - wrap
            slot = _slot(table, keys, key)
            if table[slot] == _NOWHERE:
                if count == keys.shape[0]:
                    keys, table = _grown(keys)
                    slot = _slot(table, keys, key)
                for axis in range(dimensions):
                    keys[count, axis] = key[axis]
                table[slot] = count
                count += 1
            corners[point, corner] = table[slot]
    return corners, shares, _neighbours(table, keys, count)


@njit(nogil=True, cache=True, error_model="numpy")
def _locate(feature, scale, base, place, share, elevated, ordered):
    """Find the simplex of a point.

    Fills `base`, the corner of remainder 0, `place`, the rank of each coordinate's distance from it (0 is
    the largest), and `share`, the barycentric coordinates. `elevated` and `ordered` are working memory.
    """
    dimensions = feature.shape[0]
    side = np.float32(dimensions + 1)
    total = np.float32(0)
    for axis in range(dimensions, 0, -1):
        part = feature[axis - 1] * scale[axis - 1]
        elevated[axis] = total - np.float32(axis) * part
        total += part
    elevated[0] = total
    excess = 0
    for axis in range(dimensions + 1):
        steps = np.rint(elevated[axis] / side)
        base[axis] = np.int32(steps) * (dimensions + 1)
        excess += int(steps)
        place[axis] = 0
    for axis in range(dimensions):
        here = elevated[axis] - np.float32(base[axis])
        for other in range(axis + 1, dimensions + 1):
            if here < elevated[other] - np.float32(base[other]):
                place[axis] += 1
            else:
                place[other] += 1
    for axis in range(dimensions + 1):
        # Rounding may have left the plane on which coordinates sum to 0: move the outermost ones back.
        place[axis] += excess
        if place[axis] < 0:
            place[axis] += dimensions + 1
            base[axis] += dimensions + 1
        elif place[axis] > dimensions:
            place[axis] -= dimensions + 1
            base[axis] -= dimensions + 1
        ordered[place[axis]] = (elevated[axis] - np.float32(base[axis])) / side
    share[0] = np.float32(1) - (ordered[0] - ordered[dimensions])
    for corner in range(1, dimensions + 1):
        share[corner] = ordered[dimensions - corner] - ordered[dimensions - corner + 1]


@njit(nogil=True, cache=True, error_model="numpy")
def _slot(table, keys, key):
    """Where `key` is in the table, or the free slot where it belongs; sizes are powers of two."""
    mixed = np.int64(0)
    for axis in range(key.shape[0]):
        mixed = (mixed + np.int64(key[axis])) * np.int64(_SPREAD)
    mask = table.shape[0] - 1
    slot = (mixed ^ (mixed >> 17)) & mask
    while table[slot] != _NOWHERE:
        same = True
        for axis in range(key.shape[0]):
            same &= keys[table[slot], axis] == key[axis]
        if same:
            break
        slot = (slot + 1) & mask
    return slot


@njit(nogil=True, cache=True, error_model="numpy")
def _table_size(corners):
    size = 64
    while size < 2 * corners:
        size *= 2
    return size


@njit(nogil=True, cache=True, error_model="numpy")
def _grown(keys):
    """Make room for twice as many keys and put all into a new table."""
    count = keys.shape[0]
    more = np.empty((2 * count, keys.shape[1]), np.int32)
    table = np.full(_table_size(2 * count), _NOWHERE, np.int32)
    for corner in range(count):
        for axis in range(keys.shape[1]):
            more[corner, axis] = keys[corner, axis]
        table[_slot(table, more, more[corner])] = corner
    return more, table


@njit(nogil=True, cache=True, error_model="numpy")
def _neighbours(table, keys, count):
    dimensions = keys.shape[1]
    found = np.empty((dimensions + 1, count, 2), np.int32)
    key = np.empty(dimensions, np.int32)
    for direction in range(dimensions + 1):
        for corner in range(count):
            for side in range(2):
                step = 2 * side - 1
                for axis in range(dimensions):
                    key[axis] = keys[corner, axis] + step
                if direction < dimensions:
                    key[direction] = keys[corner, direction] - step * dimensions
                near = table[_slot(table, keys, key)]
                found[direction, corner, side] = count if near == _NOWHERE else near
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def _add(corners, shares, neighbours, values, before, after, out):
    points, classes = values.shape
    count = neighbours.shape[1]
    at = np.zeros((count + 1, classes), np.float32)  # the last row stands for neighbours that are not there
    for point in range(points):
        for corner in range(corners.shape[1]):
            share, place = shares[point, corner], corners[point, corner]
            for k in range(classes):
                at[place, k] += share * (before[point] * values[point, k])
    blurred = np.zeros_like(at)
    for direction in range(neighbours.shape[0]):
        for corner in range(count):
            left, right = neighbours[direction, corner, 0], neighbours[direction, corner, 1]
            for k in range(classes):
                blurred[corner, k] = at[corner, k] + np.float32(0.5) * (at[left, k] + at[right, k])
        at, blurred = blurred, at
    heard = np.empty(classes, np.float32)
    for point in range(points):
        for k in range(classes):
            heard[k] = 0
        for corner in range(corners.shape[1]):
            share, place = shares[point, corner], corners[point, corner]
            for k in range(classes):
                heard[k] += share * at[place, k]
        for k in range(classes):
            out[point, k] += after[point] * heard[k]
