"""Class probabilities by themselves are those that the labels come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from segmentd.engine import scoring
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.source import ArraySource
from segmentd.models import bundle
from segmentd.records import PixelType, SegmentOptions

from .. import tiny_model

PLAIN = SegmentOptions()


@pytest.fixture(scope="module")
def lane() -> Iterator[CpuLane]:
    lane = CpuLane(2)
    yield lane
    lane.close()


@pytest.fixture(scope="module")
def path(lane: CpuLane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "cells.segmodel"
    made = tiny_model.model()
    bundle.save(bundle.seal(replace(made.card, pixel_type=PixelType.FLOAT32), made.forest), path)
    lane.load(path)
    return path


def joined(lane: CpuLane | DeviceLane, path: Path, plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    whole = np.full((2, *plane.shape[1:]), np.nan, np.float32)
    for part in lane.scores(path, ArraySource(plane), PLAIN):
        assert np.isnan(whole[:, *part.region.window]).all(), "a pixel came twice"
        whole[:, *part.region.window] = part.scores
    return whole


def test_scores_belong_to_the_labels_and_are_nothing_where_pixels_are_no_numbers(
    lane: CpuLane, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = np.random.default_rng(3).uniform(0, 255, (1, 110, 130)).astype(np.float32)
    plane[0, 60:63, 70:90] = np.nan
    found = lane.segment_array(path, plane, PLAIN)
    scores = joined(lane, path, plane)
    bad = np.isnan(plane[0])
    assert (scores[:, bad] == 0).all()
    np.testing.assert_allclose(scores.sum(0)[~bad], 1, atol=1e-6)
    np.testing.assert_array_equal(scores.argmax(0)[~bad] + 1, found.labels[~bad])
    np.testing.assert_array_equal(np.rint(100 * scores.max(0)), found.confidence)
    monkeypatch.setattr(scoring, "TILE_PX", 64)
    np.testing.assert_array_equal(joined(lane, path, plane), scores)
