"""The engineered features as separable filters: one-dimensional weights along x, then along y.

These are the same features as the plain formulas in `filters`, in the form that `feature_plan` can share
between features and `fast_features` can compute quickly. Contract tests hold the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segmentd.compute.filters import gaussian_radius

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Taps:
    """A one-dimensional filter, folded about its centre.

    Attributes
    ----------
    weights : tuple of float
        Weights at distance 0, 1, ... from the centre, rounded to float32, so that filters which differ
        in nothing that is computed are equal.
    gain : float
        What the filter makes of an even grey level of 1, before that rounding.
    odd : bool
        The weights before the centre have the opposite sign, and the one at the centre counts as 0.
    even_length : bool
        The centre lies half a pixel before the pixel: distance 1 is the pixel itself and the one before.
    """

    weights: tuple[float, ...]
    gain: float
    odd: bool = False
    even_length: bool = False

    @property
    def reach_px(self) -> int:
        """How far the filter reads, in pixels."""
        return len(self.weights) - 1


@dataclass(frozen=True)
class Product:
    """A two-dimensional filter: `along_x` on every row, then `along_y` on every column of the result."""

    along_x: Taps
    along_y: Taps

    @property
    def gain(self) -> float:
        """What the filter makes of an even grey level of 1."""
        return self.along_x.gain * self.along_y.gain


@dataclass(frozen=True)
class Separable:
    """What makes one plane of features.

    Attributes
    ----------
    first : Product
        The filter; or the first of two whose results are added or subtracted.
    second : Product or None
        Odd along both axes.
    sign : int
        +1 adds the result of `second`, -1 subtracts it; 0 without `second`.
    sobel : bool
        The plane is the magnitude of the 3 x 3 Sobel gradient of the result of `first`.
    """

    first: Product
    second: Product | None = None
    sign: int = 0
    sobel: bool = False

    @property
    def reach_px(self) -> int:
        """How far the plane reads around a pixel, in pixels."""
        products = (self.first,) if self.second is None else (self.first, self.second)
        return max(max(p.along_x.reach_px, p.along_y.reach_px) for p in products) + int(self.sobel)


def _taps(weights: Weights, *, odd: bool = False, even_length: bool = False) -> Taps:
    gain = 0.0 if odd else round(float(weights[0] + 2 * weights[1:].sum()), 9)
    return Taps(tuple(weights.astype(np.float32).tolist()), gain, odd, even_length)


def _distances(sigma: float) -> Weights:
    return np.arange(gaussian_radius(sigma) + 1, dtype=np.float64)


def _normalised(sigma: float) -> Weights:
    """Half of a Gaussian kernel whose weights on both sides sum to 1; sigma 0 leaves the image as it is."""
    if sigma == 0:
        return np.ones(1)
    weights: Weights = np.exp(-0.5 * (_distances(sigma) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    return weights


def gaussian(sigma: float) -> Separable:
    """Gaussian of standard deviation `sigma` pixels."""
    taps = _taps(_normalised(sigma))
    return Separable(Product(taps, taps))


def sobel(sigma: float) -> Separable:
    """Magnitude of the Sobel gradient of a Gaussian."""
    return replace(gaussian(sigma), sobel=True)


def second_derivative(sigma: float, order_y: int, order_x: int) -> Separable:
    """Derivative of the given orders along y and x of a Gaussian of `sigma` pixels."""

    def derivative(order: int) -> Taps:
        weights, x = _normalised(sigma), _distances(sigma) / sigma
        polynomial = (np.ones_like(x), x / sigma, (x * x - 1) / sigma**2)[order]
        return _taps(weights * polynomial, odd=order == 1)

    return Separable(Product(derivative(order_x), derivative(order_y)))


def gabor(sigma: float, theta_degrees: float, frequency: float) -> Separable:
    """Gabor filter, from cos(a x + b y) = cos(a x) cos(b y) - sin(a x) sin(b y).

    Filters at t and 180 - t differ in the sign of the second product only, and share all the rest.
    """
    x = _distances(sigma)
    envelope = np.exp(-0.5 * (x / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    theta = np.deg2rad(theta_degrees)
    # Rounded, so that cos(90 degrees) is 0 and cos(60 degrees) is 0.5
    cosine, sine = np.round(np.cos(theta), 12), np.round(np.sin(theta), 12)
    a, b = 2 * np.pi * frequency * abs(cosine), 2 * np.pi * frequency * abs(sine)
    first = Product(_taps(envelope * np.cos(a * x)), _taps(envelope * np.cos(b * x)))
    if cosine * sine == 0:
        return Separable(first)
    second = Product(_taps(envelope * np.sin(a * x), odd=True), _taps(envelope * np.sin(b * x), odd=True))
    return Separable(first, second, -1 if cosine * sine > 0 else 1)


def mean(size: int) -> Separable:
    """Mean over `size` x `size` pixels; an even size reaches one pixel further up and left."""
    if size == 1:
        return gaussian(0)
    weights = np.full(size // 2 + 1, 1.0 / size)
    even_length = size % 2 == 0
    if even_length:
        weights[0] = 0.0
    taps = _taps(weights, even_length=even_length)
    return Separable(Product(taps, taps))
