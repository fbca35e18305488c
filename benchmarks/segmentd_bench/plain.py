"""The usual pipeline that everybody writes first: scipy filters over the whole plane, then scikit-learn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

Features = npt.NDArray[np.float32]


def _gabor(sigma: float, degrees: float, frequency: float) -> npt.NDArray[np.float64]:
    radius = int(4 * sigma + 0.5)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    turned = x * np.cos(np.deg2rad(degrees)) + y * np.sin(np.deg2rad(degrees))
    envelope = np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    kernel: npt.NDArray[np.float64] = envelope * np.cos(2 * np.pi * frequency * turned)
    return kernel


def _second(image: Features) -> list[Features]:
    return [ndimage.gaussian_filter(image, 1.0, order=order) for order in ((0, 2), (2, 0), (1, 1))]


def _edges(image: Features) -> Features:
    edges: Features = np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1))
    return edges


def basic25(image: Features) -> list[Features]:
    """The 25 features of `basic25`, as 25 planes."""
    smooth = [ndimage.gaussian_filter(image, sigma) for sigma in (0.7, 1, 2, 4, 8)]
    waves = [
        ndimage.convolve(image, _gabor(1, degrees, frequency))
        for frequency in (0.1, 0.2)
        for degrees in (0, 60, 120, 180, 240, 300)
    ]
    return [*smooth, *map(_edges, smooth), *waves, *_second(image)]


def basic33(image: Features) -> list[Features]:
    """The 33 features of `basic33`, as 33 planes."""
    smooth = [ndimage.gaussian_filter(image, step / 2) if step else image for step in range(20)]
    waves = [ndimage.convolve(image, _gabor(sigma, 180, f)) for sigma in (1, 3) for f in (0.05, 0.25)]
    means = [ndimage.uniform_filter(image, size) for size in (1, 2, 4, 8, 16)]
    return [*smooth, _edges(image), *waves, *means, *_second(image)]


FEATURES = {"basic25": basic25, "basic33": basic33}


class PlainPipeline:
    """Features of the whole plane, `RandomForestClassifier` on one core."""

    def __init__(self, features: str, trees: int, seed: int) -> None:
        self._features = FEATURES[features]
        self._forest = RandomForestClassifier(n_estimators=trees, random_state=seed, n_jobs=1)

    def fit(self, pixels: npt.NDArray[np.generic], labels: npt.NDArray[np.uint8]) -> None:
        """Train on the labelled pixels of a plane (C, Y, X)."""
        marked = labels > 0
        self._forest.fit(self._stack(pixels)[marked], labels[marked])

    def predict(self, pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        """Labels (Y, X), by way of the probabilities, as confidence needs them."""
        stack = self._stack(pixels)
        scores = self._forest.predict_proba(stack.reshape(-1, stack.shape[-1]))
        labels = self._forest.classes_[scores.argmax(axis=1)]
        np.rint(100 * scores.max(axis=1)).astype(np.uint8)
        found: npt.NDArray[np.uint8] = labels.reshape(stack.shape[:2])
        return found

    def _stack(self, pixels: npt.NDArray[np.generic]) -> Features:
        planes = [plane for channel in pixels for plane in self._features(channel.astype(np.float32))]
        return np.stack(planes, axis=-1)
