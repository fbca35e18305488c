"""The named feature sets: a tile becomes a feature stack (F, h, w).

A feature set is computed for each channel by itself; the stacks of all channels follow one another,
so feature `f` of channel `c` is plane `c * len(set) + f`. Sets of filters are here, those that a trained
network gives in `deep_sets`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from segmentd.compute import filters, separable
from segmentd.compute.deep_sets import DeepFeatureSet, deep_sets
from segmentd.compute.filters import Image
from segmentd.compute.separable import Separable

Filter = Callable[[Image], Image]


@dataclass(frozen=True)
class Feature:
    """One feature: its name, how far it reads (pixels), the plain formula, and the same for the fast way.

    Features with equal `name` are the same plane and are computed once.
    """

    name: str
    reach_px: int
    apply: Filter
    separable: Separable


@dataclass(frozen=True)
class FeatureSet:
    """A named, ordered list of filters."""

    name: str
    description: str
    features: tuple[Feature, ...]

    @property
    def reach_px(self) -> int:
        """How far around a pixel the set reads, in pixels."""
        return max(feature.reach_px for feature in self.features)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature.name for feature in self.features)

    def __len__(self) -> int:
        return len(self.features)


AnyFeatureSet = FeatureSet | DeepFeatureSet


def _gaussian(sigma: float) -> Feature:
    return Feature(
        f"gaussian sigma={sigma:g}",
        filters.gaussian_radius(sigma),
        lambda image: filters.gaussian(image, sigma),
        separable.gaussian(sigma),
    )


def _sobel(sigma: float) -> Feature:
    return Feature(
        f"sobel of gaussian sigma={sigma:g}",
        filters.gaussian_radius(sigma) + 1,
        lambda image: filters.sobel_magnitude(filters.gaussian(image, sigma)),
        separable.sobel(sigma),
    )


def _gabor(sigma: float, theta_degrees: float, frequency: float) -> Feature:
    # The kernel at t + 180 degrees is the kernel at t: one plane, two slots.
    theta = theta_degrees % 180
    return Feature(
        f"gabor sigma={sigma:g} theta={theta:g} f={frequency:g}",
        filters.gaussian_radius(sigma),
        lambda image: filters.gabor(image, sigma, theta, frequency),
        separable.gabor(sigma, theta, frequency),
    )


def _second(name: str, order_y: int, order_x: int) -> Feature:
    return Feature(
        f"gaussian {name} sigma=1",
        filters.gaussian_radius(1.0),
        lambda image: filters.second_derivative(image, 1.0, order_y, order_x),
        separable.second_derivative(1.0, order_y, order_x),
    )


def _mean(size: int) -> Feature:
    return Feature(
        f"mean size={size}", size // 2, lambda image: filters.mean(image, size), separable.mean(size)
    )


_SECOND = (_second("xx", 0, 2), _second("yy", 2, 0), _second("xy", 1, 1))


def _basic25() -> FeatureSet:
    sigmas = (0.7, 1.0, 2.0, 4.0, 8.0)
    gabors = (
        _gabor(1.0, theta, frequency) for frequency in (0.1, 0.2) for theta in (0, 60, 120, 180, 240, 300)
    )
    return FeatureSet(
        "basic25",
        "25 features a channel: Gaussians, their Sobel magnitudes, Gabor filters, second derivatives",
        (*map(_gaussian, sigmas), *map(_sobel, sigmas), *gabors, *_SECOND),
    )


def _basic33() -> FeatureSet:
    gaussians = (_gaussian(step * 0.5) for step in range(20))
    gabors = (_gabor(sigma, 180, frequency) for sigma in (1.0, 3.0) for frequency in (0.05, 0.25))
    return FeatureSet(
        "basic33",
        "33 features a channel: Gaussians, Sobel magnitude, Gabor and mean filters, second derivatives",
        (*gaussians, _sobel(0.0), *gabors, *map(_mean, (1, 2, 4, 8, 16)), *_SECOND),
    )


@cache
def filter_sets() -> dict[str, FeatureSet]:
    """The feature sets that are made of filters, by name."""
    return {feature_set.name: feature_set for feature_set in (_basic25(), _basic33())}


@cache
def feature_sets() -> dict[str, AnyFeatureSet]:
    """All feature sets by name; no other list of them exists."""
    return {**filter_sets(), **{feature_set.name: feature_set for feature_set in deep_sets()}}


def feature_names(feature_set: AnyFeatureSet, channel_names: tuple[str, ...]) -> list[str]:
    """Names of the planes of a feature stack, in order; with the channel where there are several."""
    if len(channel_names) == 1:
        return list(feature_set.feature_names)
    return [f"{channel}: {name}" for channel in channel_names for name in feature_set.feature_names]


def compute_features(tile: npt.NDArray[np.float32], feature_set: FeatureSet) -> npt.NDArray[np.float32]:
    """Compute the feature stack of a tile.

    Parameters
    ----------
    tile : float32 array (C, h + 2 r, w + 2 r)
        Pixels with r = `feature_set.reach_px` pixels of surroundings on each side.
    feature_set : FeatureSet
        What to compute.

    Returns
    -------
    float32 array (C * len(feature_set), h, w)
    """
    reach = feature_set.reach_px
    channels, padded_height, padded_width = tile.shape
    height, width = padded_height - 2 * reach, padded_width - 2 * reach
    stack = np.empty((channels * len(feature_set), height, width), np.float32)
    core = (slice(reach, reach + height), slice(reach, reach + width))
    for channel in range(channels):
        image = np.ascontiguousarray(tile[channel], dtype=np.float32)
        first = channel * len(feature_set)
        computed: dict[str, int] = {}
        for slot, feature in enumerate(feature_set.features, start=first):
            if feature.name in computed:
                stack[slot] = stack[computed[feature.name]]
                continue
            stack[slot] = feature.apply(image)[core]
            computed[feature.name] = slot
    return stack
