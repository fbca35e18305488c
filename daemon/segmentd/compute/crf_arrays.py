"""The field of `segmentd.compute.crf` as operations on whole arrays, of numpy's namespace or CuPy's.

What `segmentd.compute.permutohedral` does pixel by pixel with a table of keys is done here by sorting. Sums
are made in another order, so marginals differ in their last digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from segmentd.compute.crf import NORM_FLOOR, Parameters, Window, kernels, log_probabilities
from segmentd.compute.permutohedral import axis_scale

Array = Any  # of the namespace


def infer(xp: ModuleType, window: Window, parameters: Parameters) -> Array:
    """As `segmentd.compute.crf.infer`; the result (K, h, w) is an array of the namespace."""
    own = xp.asarray(log_probabilities(window, parameters))
    fields = []
    for points, factor in kernels(window, parameters):
        lattice = build(xp, xp.asarray(points))
        ones = xp.ones((len(points), 1), np.float32)
        norm = np.float32(1) / xp.sqrt(lattice.filtered(xp, ones) + np.float32(NORM_FLOOR))
        fields.append((lattice, norm, np.float32(factor)))
    marginals = _softmax(xp, own)
    for _ in range(parameters.iterations):
        energy = own
        for lattice, norm, weight in fields:
            energy = energy + weight * norm * lattice.filtered(xp, norm * marginals)
        marginals = _softmax(xp, energy)
    return xp.ascontiguousarray(marginals.T).reshape(window.scores.shape)


@dataclass(frozen=True)
class ArrayLattice:
    """As `segmentd.compute.permutohedral.Lattice`, of the namespace's arrays."""

    corners: Array
    shares: Array
    neighbours: Array

    def filtered(self, xp: ModuleType, values: Array) -> Array:
        """What all points say to each, float32 (N, K): `values` of that shape by a Gaussian of distances."""
        _, count, _ = self.neighbours.shape
        flat = self.corners.ravel()
        sums = [
            xp.bincount(flat, weights=(self.shares * values[:, k : k + 1]).ravel(), minlength=count + 1)
            for k in range(values.shape[1])
        ]
        at = xp.stack(sums, axis=1).astype(np.float32)
        for left, right in ((near[:, 0], near[:, 1]) for near in self.neighbours):
            blurred = at.copy()  # the last row, which stands for neighbours that are not there, stays 0
            blurred[:-1] += np.float32(0.5) * (at[left] + at[right])
            at = blurred
        heard = xp.zeros(values.shape, np.float32)
        for corner in range(self.corners.shape[1]):
            heard += self.shares[:, corner : corner + 1] * at[self.corners[:, corner]]
        return heard


def build(xp: ModuleType, features: Array) -> ArrayLattice:
    """As `segmentd.compute.permutohedral.build`."""
    points, dimensions = features.shape
    side = dimensions + 1
    base, place, shares = _located(xp, features)
    keys = []
    for corner in range(side):
        wrapped = xp.where(place[:, :dimensions] <= dimensions - corner, 0, side)
        keys.append(base[:, :dimensions] + corner - wrapped)
    numbers, known = _numbered(xp, xp.stack(keys, axis=1).reshape(points * side, dimensions))
    near = []
    for direction in range(side):
        for step in (-1, 1):
            wanted = known + step
            if direction < dimensions:
                wanted[:, direction] = known[:, direction] - step * dimensions
            near.append(_found(xp, known, wanted))
    neighbours = xp.stack(near, axis=1).reshape(len(known), side, 2).transpose(1, 0, 2)
    return ArrayLattice(numbers.reshape(points, side), shares, neighbours)


def _located(xp: ModuleType, features: Array) -> tuple[Array, Array, Array]:
    """The simplex of each point: corner of remainder 0, ranks, barycentric coordinates, (N, d + 1) each."""
    points, dimensions = features.shape
    side = dimensions + 1
    parts = features * xp.asarray(axis_scale(dimensions))
    elevated = xp.empty((points, side), np.float32)
    total = xp.zeros(points, np.float32)
    for axis in range(dimensions, 0, -1):
        elevated[:, axis] = total - np.float32(axis) * parts[:, axis - 1]
        total = total + parts[:, axis - 1]
    elevated[:, 0] = total
    steps = xp.rint(elevated / np.float32(side)).astype(np.int32)
    base, rest = steps * side, elevated - (steps * side).astype(np.float32)
    place = xp.zeros((points, side), np.int32)
    for axis in range(dimensions):
        for other in range(axis + 1, side):
            less = rest[:, axis] < rest[:, other]
            place[:, axis] += less
            place[:, other] += ~less
    # Rounding may have left the plane on which coordinates sum to 0: move the outermost ones back.
    place += steps.sum(axis=1, keepdims=True).astype(np.int32)
    back = side * ((place < 0).astype(np.int32) - (place > dimensions).astype(np.int32))
    place, base = place + back, base + back
    rest = (elevated - base.astype(np.float32)) / np.float32(side)
    ordered = xp.take_along_axis(rest, xp.argsort(place, axis=1), axis=1)
    shares = xp.empty((points, side), np.float32)
    shares[:, 0] = np.float32(1) - (ordered[:, 0] - ordered[:, dimensions])
    for corner in range(1, side):
        shares[:, corner] = ordered[:, dimensions - corner] - ordered[:, dimensions - corner + 1]
    return base, place, shares


def _numbered(xp: ModuleType, rows: Array) -> tuple[Array, Array]:
    """The number of each row among the different ones, and these."""
    order = xp.lexsort(xp.ascontiguousarray(rows.T))
    ordered = rows[order]
    new = xp.ones(len(rows), np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = xp.empty(len(rows), np.int64)
    numbers[order] = xp.cumsum(new) - 1
    return numbers, ordered[new]


def _found(xp: ModuleType, known: Array, wanted: Array) -> Array:
    """Where each wanted row is among the known ones, which differ; their number where it is not."""
    count = len(known)
    numbers, _ = _numbered(xp, xp.concatenate([known, wanted]))
    places = xp.full(len(numbers), count, np.int64)
    places[numbers[:count]] = xp.arange(count)
    return places[numbers[count:]]


def _softmax(xp: ModuleType, energy: Array) -> Array:
    shares = xp.exp(energy - energy.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
