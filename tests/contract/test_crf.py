"""Our own conditional random field gives the labels of pydensecrf on real micrographs of all kinds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segmentd.compute import crf, normalize
from segmentd.compute.features import feature_names, feature_sets
from segmentd.engine.predictor import make_predictor
from segmentd.engine.segmenter import PlaneJob
from segmentd.engine.source import ArraySource
from segmentd.models import bundle, training
from segmentd.records import ClassInfo, PixelType, Region, SegmentOptions

from ..unit import tiny_model

SETS = (
    "nuclei_bbbc039",
    "sandstone_xrm",
    "tissue_rgb",
    "superalloy_sem",
    "bacteria_phase",
    "axon_myelin_sem",
    "two_channel_cells",
)
PARAMETERS = crf.Parameters()


def read(path: Path) -> npt.NDArray[np.generic]:
    """The image as (C, Y, X)."""
    pixels: npt.NDArray[np.generic] = tifffile.imread(path)
    if pixels.ndim == 2:
        return pixels[None]
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0)) if pixels.shape[-1] == 3 else pixels


def windows(data: Path) -> list[crf.Window]:
    """Probabilities of all images of a set by models of their strokes."""
    description = json.loads((data / "dataset.json").read_text())
    features, found = feature_sets()["basic25"], []
    for entry in description["images"]:
        pixels, strokes = read(data / entry["image"]), tifffile.imread(data / entry["scribble"])
        names = tuple(f"c{number}" for number in range(len(pixels)))
        classes = len(description["classes"])
        samples = training.collect(pixels, strokes, features, "none")
        forest = training.train(samples, classes, feature_names(features, names)).forest
        card = replace(
            tiny_model.CARD,
            classes=tuple(ClassInfo(value + 1, "", "#000000") for value in range(classes)),
            channel_count=len(pixels),
            channels=names,
            pixel_type=PixelType(pixels.dtype.name),
        )
        job = PlaneJob(
            make_predictor(bundle.seal(card, forest)), ArraySource(pixels), slice(None), SegmentOptions()
        )
        height, width = pixels.shape[1:]
        scores = job.scores(job.read(0, height), Region(0, 0, height, width))
        scale = normalize.measure(lambda pixels=pixels: [pixels], "percentile")
        assert scale is not None
        found.append(crf.Window(scores, crf.make_guide(pixels, scale)))
    return found


def agreement(data: Path) -> float:
    """Least share of pixels of an image with equal labels."""
    pytest.importorskip("pydensecrf", reason="needs the extra crf, which does not build for Python 3.13")
    from segmentd.compute import crf_pydensecrf

    shares = []
    for window in windows(data):
        ours, theirs = crf.infer(window, PARAMETERS), crf_pydensecrf.infer(window, PARAMETERS)
        assert np.abs(ours - theirs).max() < 0.05
        changed = ours.argmax(axis=0) != window.scores.argmax(axis=0)
        assert changed.any()  # there was something to agree on
        shares.append(float((ours.argmax(axis=0) == theirs.argmax(axis=0)).mean()))
    return min(shares)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_it_agrees_on_all_images(shared_data: Path, name: str) -> None:
    assert agreement(shared_data / name) > 0.9999
