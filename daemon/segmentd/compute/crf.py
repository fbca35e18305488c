"""A fully connected conditional random field over the class probabilities of a plane, by mean field.

Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials", NIPS
2011. Every pixel asks all others for their class. The voice of a pixel counts by two Gaussians: how near it
is (smoothness), and how near and how alike in grey level it is (appearance). Both are filtered on the
permutohedral lattice, so that the time grows with the pixels and not with their square.

Positions are those in the plane. Two windows of one plane meet the same lattice, and away from their edges
they agree.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from segmentd.compute import permutohedral
from segmentd.compute.normalize import Scale, to_float

Floats = npt.NDArray[np.float32]

# Brighter and darker than this many contrast ranges beyond the 1st and 99th percentile is cut off.
GUIDE_BEYOND = 1.0
NORM_FLOOR = 1e-20


@dataclass(frozen=True)
class Parameters:
    """How the field is weighted.

    Attributes
    ----------
    smoothness_px, smoothness_weight : float
        Standard deviation and weight of the Gaussian over distance alone. It removes specks.
    appearance_px, appearance_contrast, appearance_weight : float
        The same of the Gaussian over distance and grey level, which moves borders to edges of the image.
        `appearance_contrast` is a part of the plane's contrast: 1 is from its 1st to its 99th percentile.
    iterations : int
        Steps of the mean field.
    least_probability : float
        Probabilities below count as this: no tree saw the class, which does not make it impossible.
    """

    smoothness_px: float = 1.5
    smoothness_weight: float = 3.0
    appearance_px: float = 10.0
    appearance_contrast: float = 0.1
    appearance_weight: float = 5.0
    iterations: int = 5
    least_probability: float = 0.01

    def as_dict(self) -> dict[str, float]:
        """Return the values by name, as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Window:
    """A rectangle of a plane.

    Attributes
    ----------
    scores : float32 array (K, h, w)
        Probability of each class.
    guide : float32 array (C, h, w)
        The image, see `make_guide`.
    y, x : int
        Its first row and column in the plane.
    """

    scores: Floats
    guide: Floats
    y: int = 0
    x: int = 0


def make_guide(pixels: npt.NDArray[np.generic], scale: Scale) -> Floats:
    """Grey levels in units of the plane's contrast, whatever the pixel type.

    Parameters
    ----------
    pixels : array (C, h, w)
        Of any type. Pixels that are not finite count as the 1st percentile.
    scale : Scale
        `normalize.measure(..., "percentile")` of the whole plane.
    """
    return np.clip(to_float(pixels, scale), -GUIDE_BEYOND, 1 + GUIDE_BEYOND)


def log_probabilities(window: Window, parameters: Parameters) -> Floats:
    """What the model says of each pixel: float32 (h * w, K)."""
    rows = window.scores.reshape(len(window.scores), -1).T
    out: Floats = np.log(np.maximum(rows, np.float32(parameters.least_probability)))
    return np.ascontiguousarray(out)


def kernels(window: Window, parameters: Parameters) -> list[tuple[Floats, float]]:
    """Points and weight of both Gaussians: float32 (h * w, d), in standard deviations."""
    contrast = window.guide / np.float32(parameters.appearance_contrast)
    none = np.empty((0, *window.guide.shape[1:]), np.float32)
    return [
        (_points(window, parameters.smoothness_px, none), parameters.smoothness_weight),
        (_points(window, parameters.appearance_px, contrast), parameters.appearance_weight),
    ]


def _points(window: Window, sigma_px: float, more: Floats) -> Floats:
    height, width = window.scores.shape[1:]
    # Whole periods of the lattice are taken off: positions stay small, so float32 holds them.
    y = _from_period(np.arange(window.y, window.y + height) / sigma_px, permutohedral.PERIODS[1])
    x = _from_period(np.arange(window.x, window.x + width) / sigma_px, permutohedral.PERIODS[0])
    points = np.empty((height, width, 2 + len(more)), np.float32)
    points[..., 0], points[..., 1] = x, y[:, None]
    points[..., 2:] = np.moveaxis(more, 0, -1)
    return points.reshape(height * width, -1)


def _from_period(positions: npt.NDArray[np.float64], period: float) -> npt.NDArray[np.float64]:
    out: npt.NDArray[np.float64] = positions - np.floor(positions[0] / period) * period
    return out


def infer(window: Window, parameters: Parameters) -> Floats:
    """Marginal probability of each class after the field: float32 (K, h, w); releases the GIL."""
    own = log_probabilities(window, parameters)
    fields = [(*_normalised(points), np.float32(weight)) for points, weight in kernels(window, parameters)]
    marginals = own.copy()
    _softmax(marginals)
    for _ in range(parameters.iterations):
        energy = own.copy()
        for lattice, norm, weight in fields:
            lattice.add(marginals, norm, weight * norm, energy)
        _softmax(energy)
        marginals = energy
    return np.ascontiguousarray(marginals.T).reshape(window.scores.shape)


def _normalised(points: Floats) -> tuple[permutohedral.Lattice, Floats]:
    """The lattice, and by what to multiply before and after so that all pixels have a like say: (N,)."""
    lattice = permutohedral.build(points)
    ones, sums = np.ones(len(points), np.float32), np.zeros((len(points), 1), np.float32)
    lattice.add(ones[:, None], ones, ones, sums)
    return lattice, np.float32(1) / np.sqrt(sums[:, 0] + np.float32(NORM_FLOOR))


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator,unused-ignore]
def _softmax(energy: Floats) -> None:
    """exp(energy) scaled to the sum 1 over the classes, in place."""
    points, classes = energy.shape
    for point in range(points):
        most = energy[point, 0]
        for k in range(1, classes):
            most = max(most, energy[point, k])
        total = np.float32(0)
        for k in range(classes):
            energy[point, k] = np.exp(energy[point, k] - most)
            total += energy[point, k]
        for k in range(classes):
            energy[point, k] /= total
