"""The lattice against the Gaussian sum that it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from segmentd.compute import permutohedral

RNG = np.random.default_rng(11)


def filtered(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What all points say to each, scaled so that ones stay ones."""
    lattice = permutohedral.build(points)
    ones, sums, out = np.ones(len(points), np.float32), np.zeros((len(points), 1), np.float32), values * 0
    lattice.add(ones[:, None], ones, ones, sums)
    lattice.add(values, ones, 1 / sums[:, 0], out)
    return out


def exact(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The same by the sum over all pairs."""
    weights = np.exp(-0.5 * ((points[:, None] - points) ** 2).sum(axis=2, dtype=np.float64))
    return weights @ values / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_it_is_close_to_the_gaussian(dimensions: int) -> None:
    points = RNG.uniform(0, 5, (1200, dimensions)).astype(np.float32)
    values = np.stack([points[:, 0], np.sin(points).sum(axis=1)], axis=1)
    found, wanted = filtered(points, values), exact(points, values)
    assert np.abs(found - wanted).mean() < 0.12
    assert min(np.corrcoef(found[:, k], wanted[:, k])[0, 1] for k in range(2)) > 0.97


def test_shares_and_corners_of_any_point() -> None:
    points = RNG.normal(0, 300, (2000, 4)).astype(np.float32)
    lattice = permutohedral.build(points)
    assert lattice.shares.min() >= -1e-3
    np.testing.assert_allclose(lattice.shares.sum(axis=1), 1, atol=1e-3)
    assert lattice.corners.min() == 0
    assert lattice.corners.max() == lattice.neighbours.shape[1] - 1
    assert all(len(set(row)) == 5 for row in lattice.corners.tolist())


def test_neighbours_are_mutual() -> None:
    points = RNG.uniform(0, 8, (3000, 3)).astype(np.float32)
    neighbours = permutohedral.build(points).neighbours
    corners = neighbours.shape[1]
    for before, after in np.moveaxis(neighbours, 2, 1):
        there = np.flatnonzero(after < corners)
        assert len(there) > corners / 2
        np.testing.assert_array_equal(before[after[there]], there)


def test_points_moved_by_whole_periods_meet_the_same_lattice() -> None:
    # off the faces of simplices, where rounding would decide which corners there are
    rows, columns = np.mgrid[:40, :50].reshape(2, -1)
    y, x = (rows + 0.137) / 3, (columns + 0.061) / 3
    values = RNG.random((y.size, 2), np.float32)
    steps = np.array(permutohedral.PERIODS) * (7, 4)
    here = filtered(np.stack([x, y], axis=1).astype(np.float32), values)
    there = filtered(np.stack([x + steps[0], y + steps[1]], axis=1).astype(np.float32), values)
    aside = filtered(np.stack([x + 0.4, y + 0.6], axis=1).astype(np.float32), values)
    np.testing.assert_allclose(there, here, atol=1e-4)
    assert np.abs(aside - here).max() > 1e-2
