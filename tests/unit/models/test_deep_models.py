"""Models of deep features as files, and what is said where weights or TensorFlow are missing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segmentd.compute import tensorflow_device
from segmentd.compute.deep_sets import deep_sets
from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, deep_features, training, vgg_weights
from segmentd.models.border import with_border
from segmentd.models.packages import with_card

from ..tiny_model import model as tiny_model

SETS = {entry.name: entry for entry in deep_sets()}
CHECKSUM = "0123456789abcdef" * 4


def deep_model(name: str = "deep50") -> bundle.Model:
    feature_set = SETS[name]
    features = np.random.default_rng(0).normal(size=(40, len(feature_set))).astype(np.float32)
    labels = np.where(features[:, 7] > 0, 2, 1).astype(np.uint8)
    trained = training.train(training.Samples(features, labels), 2, list(feature_set.feature_names))
    card = replace(
        tiny_model().card, feature_set=name, border_px=feature_set.reach_px, weights_sha256=CHECKSUM
    )
    return bundle.seal(card, trained.forest, feature_set.random_projection(0))


@pytest.mark.parametrize("name", ["deep50", "deep64"])
def test_the_file_keeps_projection_and_checksum(name: str, tmp_path: Path) -> None:
    made = deep_model(name)
    bundle.save(made, tmp_path / "a.segmodel")
    read = bundle.load(tmp_path / "a.segmodel")
    assert read.card == made.card
    assert deep_features.is_deep(read) and not deep_features.is_deep(tiny_model())
    if made.projection is None:
        assert read.projection is None
    else:
        assert_array_equal(read.projection, made.projection)
    changed = with_card(read, with_border(read.card, 64))
    assert isinstance(changed, bundle.Model)
    assert changed.card.digest != made.card.digest
    assert with_card(changed, with_border(changed.card, None)).card.digest == made.card.digest


def test_projection_and_weights_are_part_of_the_digest() -> None:
    made = deep_model()
    other = bundle.seal(made.card, made.forest, SETS["deep50"].random_projection(1))
    assert other.card.digest != made.card.digest
    retrained = bundle.seal(replace(made.card, weights_sha256="f" * 64), made.forest, made.projection)
    assert retrained.card.digest != made.card.digest


def test_a_model_must_fit_its_features() -> None:
    made = deep_model()
    with pytest.raises(ValueError, match="projection"):
        bundle.seal(made.card, made.forest)
    with pytest.raises(ValueError, match="projection"):
        bundle.seal(made.card, made.forest, SETS["deep70"].random_projection(0))
    assert made.projection is not None
    with pytest.raises(ValueError, match="finite"):
        bundle.seal(made.card, made.forest, np.full_like(made.projection, np.nan))
    with pytest.raises(ValueError, match="weights_sha256"):
        bundle.seal(replace(made.card, weights_sha256=""), made.forest, made.projection)
    plain = tiny_model()
    with pytest.raises(ValueError, match="weights_sha256"):
        bundle.seal(replace(plain.card, weights_sha256=CHECKSUM), plain.forest)


def test_missing_weights_are_asked_for_and_not_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tensorflow_device, "require_extra", lambda: None)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(SegmentdError, match="--vgg19-weights") as caught:
        vgg_weights.load(SETS["deep64"], None)
    assert caught.value.reason is Reason.MODEL_UNUSABLE
    assert str(tmp_path) in caught.value.message and "keras.applications" in caught.value.message
    with pytest.raises(SegmentdError, match="no such file"):
        vgg_weights.load(SETS["deep64"], tmp_path / "no.weights.h5")


def test_other_weights_than_those_of_the_training_are_refused() -> None:
    weights = vgg_weights.VggWeights((), "f" * 64)
    vgg_weights.check(weights, "f" * 64, "cells")
    with pytest.raises(SegmentdError, match="other VGG19 weights") as caught:
        vgg_weights.check(weights, CHECKSUM, "cells")
    assert caught.value.reason is Reason.MODEL_UNUSABLE


def test_training_without_tensorflow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(SegmentdError, match=r"segmentd\[deep\]") as caught:
        deep_features.for_training(SETS["deep64"], None, 0, 1)
    assert caught.value.reason is Reason.MISSING_EXTRA


def test_deep_features_are_not_collected_without_an_extractor() -> None:
    with pytest.raises(ValueError, match="extractor"):
        training.collect(np.zeros((1, 8, 8), np.uint8), np.ones((8, 8), np.uint8), SETS["deep64"], "none")
