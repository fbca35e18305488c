"""What is measured on: a synthetic texture with labels, or an image and labels of the user's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segmentd.compute.deep_sets import DeepFeatureSet
from segmentd.compute.features import feature_names, feature_sets
from segmentd.imagefile import default_color
from segmentd.models import bundle, training
from segmentd.models.deep_features import DeepFeatures, for_training
from segmentd.models.fit import pixel_type_of
from segmentd.records import ClassInfo, ModelCard, PixelSize

LABELLED_PIXELS = 500


@dataclass(frozen=True)
class Subject:
    """A plane (C, Y, X), sparse labels (Y, X), and what to call it."""

    name: str
    pixels: npt.NDArray[np.generic]
    labels: npt.NDArray[np.uint8]

    @property
    def megapixels(self) -> float:
        """Pixels of the plane in millions, each counted once whatever its channels."""
        return self.labels.size / 1e6


def texture(size_px: int, classes: int, seed: int = 0) -> Subject:
    """A uint16 texture of `classes` materials that differ in brightness and grain, with noise."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(size_px, size_px)), 14, mode="wrap")
    edges = np.quantile(field, np.linspace(0, 1, classes + 1)[1:-1])
    truth = np.digitize(field, edges)
    grain = ndimage.gaussian_filter(rng.normal(size=truth.shape), 2.5, mode="wrap")
    grain /= grain.std()
    counts = 3000 + 1800 * truth + grain * (300 + 250 * truth) + rng.normal(0, 250, truth.shape)
    labels = np.zeros(truth.shape, np.uint8)
    for value in range(classes):
        places = np.flatnonzero(truth == value)
        labels.ravel()[rng.choice(places, min(LABELLED_PIXELS, len(places)), replace=False)] = value + 1
    pixels = np.clip(counts, 0, 65535).astype(np.uint16)
    return Subject(f"texture {size_px} x {size_px}, {classes} classes", pixels[None], labels)


def trained_model(
    subject: Subject,
    features: str,
    trees: int = training.TREES,
    seed: int = 0,
    deep: DeepFeatures | None = None,
) -> bundle.Model:
    """A model trained on the subject's own labels; deep feature sets need `deep`."""
    feature_set = feature_sets()[features]
    classes = int(subject.labels.max())
    channels = tuple(f"channel {i + 1}" for i in range(len(subject.pixels)))
    extractor = deep.extractor if deep else None
    samples = training.collect(subject.pixels, subject.labels, feature_set, "none", extractor)
    trained = training.train(samples, classes, feature_names(feature_set, channels), seed, trees=trees)
    card = ModelCard(
        id="benchmark",
        display_name="benchmark",
        kind="forest",
        feature_set=features,
        classes=tuple(ClassInfo(v, f"class {v}", default_color(v)) for v in range(1, classes + 1)),
        channel_count=len(channels),
        channels=channels,
        channel=None,
        channel_index=None,
        pixel_type=pixel_type_of(subject.pixels, subject.name),
        pixel_size=PixelSize(),
        border_px=feature_set.reach_px,
        normalization="none",
        seed=seed,
        digest="",
        library_versions=trained.library_versions,
        scores=trained.scores,
        weights_sha256=deep.weights_sha256 if deep else "",
    )
    return bundle.seal(card, trained.forest, extractor.projection if extractor else None)


def deep_features(features: str, weights: Path | None, threads: int) -> DeepFeatures | None:
    """What computes a deep feature set; None for others.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA; MODEL_UNUSABLE for missing or wrong weights.
    """
    feature_set = feature_sets()[features]
    if not isinstance(feature_set, DeepFeatureSet):
        return None
    return for_training(feature_set, weights, 0, threads)


def inner_nodes(model: bundle.Model) -> int:
    """Nodes of the forest that compare something."""
    return int(np.count_nonzero(model.forest.feature >= 0))


@contextmanager
def saved(model: bundle.Model) -> Iterator[Path]:
    """The model as a file for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="segmentd-bench-") as folder:
        path = Path(folder) / "benchmark.segmodel"
        bundle.save(model, path)
        yield path
