"""A model of two classes for uint8 images of one channel that is made in a moment: dark is 1, bright is 2."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from segmentd.compute.features import feature_sets
from segmentd.models import bundle, training
from segmentd.records import ClassInfo, ModelCard, PixelSize, PixelType

CARD = ModelCard(
    id="cells",
    display_name="Cells",
    kind="forest",
    feature_set="basic25",
    classes=(ClassInfo(1, "dark", "#000000"), ClassInfo(2, "bright", "#FFFFFF")),
    channel_count=1,
    channels=("channel 1",),
    channel=None,
    channel_index=None,
    pixel_type=PixelType.UINT8,
    pixel_size=PixelSize(),
    border_px=feature_sets()["basic25"].reach_px,
    normalization="none",
    seed=0,
    digest="",
)
"""What other tests change to their needs by `dataclasses.replace`."""


@cache
def model(seed: int = 0) -> bundle.Model:
    """Train on made-up features in which the first one decides."""
    names = [f"f{number}" for number in range(25)]
    features = np.random.default_rng(seed).uniform(0, 255, (60, 25)).astype(np.float32)
    labels = np.where(features[:, 0] > 128, 2, 1).astype(np.uint8)
    trained = training.train(training.Samples(features, labels), 2, names, seed)
    card = replace(CARD, seed=seed, library_versions=trained.library_versions, scores=trained.scores)
    return bundle.seal(card, trained.forest)


def save(path: Path, identity: str = "cells", display_name: str = "Cells", seed: int = 0) -> Path:
    """Write the model under an id and a display name; another seed is another model."""
    made = model(seed)
    card = replace(made.card, id=identity, display_name=display_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    bundle.save(bundle.Model(card, made.forest), path)
    return path
