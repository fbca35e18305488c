"""The plain formulas of the engineered features, through scipy: the oracle for every faster way.

All take and return float32 images (Y, X) and mirror at the image's edge (`reflect`). scipy sums in
float64 in an order that does not depend on the position, so the same surroundings give the same bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are used: a daemon never needs these

Image = npt.NDArray[np.float32]

TRUNCATE_SIGMAS = 4.0


def gaussian_radius(sigma: float) -> int:
    """Radius in pixels of a Gaussian kernel truncated at 4 sigma; 0 for sigma 0."""
    return int(TRUNCATE_SIGMAS * sigma + 0.5)


def gaussian(image: Image, sigma: float) -> Image:
    """Gaussian of standard deviation `sigma` pixels; sigma 0 is the image itself."""
    if sigma == 0:
        return image
    out: Image = scipy.ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=TRUNCATE_SIGMAS)
    return out


def second_derivative(image: Image, sigma: float, order_y: int, order_x: int) -> Image:
    """Derivative of the given orders along y and x of a Gaussian of `sigma` pixels."""
    out: Image = scipy.ndimage.gaussian_filter(
        image, sigma, order=(order_y, order_x), mode="reflect", truncate=TRUNCATE_SIGMAS
    )
    return out


def sobel_magnitude(image: Image) -> Image:
    """Magnitude of the unscaled 3 x 3 Sobel gradient."""
    dx = scipy.ndimage.sobel(image, axis=1, mode="reflect")
    dy = scipy.ndimage.sobel(image, axis=0, mode="reflect")
    out: Image = np.sqrt(dx * dx + dy * dy)
    return out


@cache
def gabor_kernel(sigma: float, theta_degrees: float, frequency: float) -> npt.NDArray[np.float64]:
    """Real Gabor kernel, not mean-free, of radius `int(4 sigma + 0.5)`; `frequency` in 1/pixel.

    exp(-(x^2 + y^2) / (2 sigma^2)) / (2 pi sigma^2) * cos(2 pi f (x cos t + y sin t))
    """
    radius = gaussian_radius(sigma)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    theta = np.deg2rad(theta_degrees)
    envelope = np.exp(-(x * x + y * y) / (2 * sigma * sigma)) / (2 * np.pi * sigma * sigma)
    wave = np.cos(2 * np.pi * frequency * (x * np.cos(theta) + y * np.sin(theta)))
    out: npt.NDArray[np.float64] = envelope * wave
    return out


def gabor(image: Image, sigma: float, theta_degrees: float, frequency: float) -> Image:
    """Response to `gabor_kernel` (symmetric about its centre: correlation equals convolution)."""
    kernel = gabor_kernel(sigma, theta_degrees, frequency)
    out: Image = scipy.ndimage.correlate(image, kernel, mode="reflect")
    return out


def mean(image: Image, size: int) -> Image:
    """Mean over `size` x `size` pixels; an even size reaches one pixel further up and left.

    The same values as `scipy.ndimage.uniform_filter` with origin 0, whose running sum would make a
    pixel's last bits depend on where its row begins.
    """
    if size == 1:
        return image
    weights = np.full(size, 1.0 / size)
    rows = scipy.ndimage.correlate1d(image, weights, axis=0, mode="reflect")
    out: Image = scipy.ndimage.correlate1d(rows, weights, axis=1, mode="reflect")
    return out
