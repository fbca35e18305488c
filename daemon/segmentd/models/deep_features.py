"""Deep features made ready, for training and for a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segmentd.compute.deep import Extractor
from segmentd.compute.deep_sets import DeepFeatureSet
from segmentd.compute.features import feature_sets
from segmentd.models import vgg_weights
from segmentd.models.bundle import Model


@dataclass(frozen=True)
class DeepFeatures:
    """An extractor, and the checksum of its weights."""

    extractor: Extractor
    weights_sha256: str


def is_deep(model: Model) -> bool:
    """Whether a forest looks at deep features."""
    return isinstance(feature_sets()[model.card.feature_set], DeepFeatureSet)


def for_training(feature_set: DeepFeatureSet, weights: Path | None, seed: int, threads: int) -> DeepFeatures:
    """Deep features with a new projection, where the set has one.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA; MODEL_UNUSABLE for missing or wrong weights.
    """
    read = vgg_weights.load(feature_set, weights)
    projection = feature_set.random_projection(seed)
    return DeepFeatures(Extractor(feature_set, read.layers, projection, threads), read.sha256)


def for_model(model: Model, weights: Path | None, threads: int) -> Extractor:
    """The features that a model was trained on.

    Raises
    ------
    SegmentdError
        As `for_training`; MODEL_UNUSABLE also where the weights are others than those of the training.
    """
    feature_set = feature_sets()[model.card.feature_set]
    if not isinstance(feature_set, DeepFeatureSet):
        raise ValueError(f"{feature_set.name} is not a deep feature set")
    read = vgg_weights.load(feature_set, weights)
    vgg_weights.check(read, model.card.weights_sha256, model.card.display_name)
    return Extractor(feature_set, read.layers, model.projection, threads)
