"""A small model and a plane that are made in a moment, to try what this machine computes."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import scipy

from segmentd.compute import fast_features
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import filter_sets
from segmentd.models import bundle, training
from segmentd.records import ClassInfo, ModelCard, PixelSize, PixelType

EDGE_PX = 512
STROKES = 1500
FEATURES = "basic25"


def made_up_plane(
    channels: int, pixel_type: PixelType, edge_px: int = EDGE_PX, seed: int = 0
) -> npt.NDArray[np.generic]:
    """Blobs in noise, over most of the range of the pixel type: array (C, edge, edge)."""
    chance = np.random.default_rng(seed)
    noise = chance.standard_normal((channels, edge_px, edge_px))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 6, 6), mode="wrap")
    blobs = 0.4 + 0.3 * np.tanh(4 * smooth / smooth.std()) + 0.04 * noise
    dtype = np.dtype(pixel_type.value)
    largest = np.iinfo(dtype).max if dtype.kind in "iu" else 1.0
    return np.asarray(np.clip(blobs, 0, 1) * min(largest, 60_000)).astype(dtype)


@cache
def test_model() -> bundle.Model:
    """A forest of 25 trees for planes of one channel in 16 bits: dark, edge and bright."""
    plane = made_up_plane(1, PixelType.UINT16, seed=1)
    feature_set = filter_sets()[FEATURES]
    reach = feature_set.reach_px
    pixels = np.pad(plane.astype(np.float32), ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    stack = fast_features.stack(plan_features(feature_set, 1), pixels)
    classes = 1 + np.digitize(scipy.ndimage.gaussian_filter(plane[0].astype(np.float32), 2), (14_000, 34_000))
    chosen = np.random.default_rng(2).integers(0, plane[0].size, STROKES)
    samples = training.Samples(
        stack.reshape(len(stack), -1).T[chosen], classes.ravel()[chosen].astype(np.uint8)
    )
    trained = training.train(samples, 3, [feature.name for feature in feature_set.features], 0)
    card = ModelCard(
        id="self-test",
        display_name="self test",
        kind=bundle.FOREST,
        feature_set=FEATURES,
        classes=(
            ClassInfo(1, "dark", "#000000"),
            ClassInfo(2, "edge", "#808080"),
            ClassInfo(3, "bright", "#FFFFFF"),
        ),
        channel_count=1,
        channels=("channel 1",),
        channel=None,
        channel_index=None,
        pixel_type=PixelType.UINT16,
        pixel_size=PixelSize(),
        border_px=reach,
        normalization="none",
        seed=0,
        digest="",
        library_versions=trained.library_versions,
        scores=trained.scores,
    )
    return bundle.seal(card, trained.forest)
