"""Planes through the conditional random field: no seams, by either implementation, whatever the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from segmentd.compute import crf
from segmentd.compute.features import feature_names, feature_sets
from segmentd.engine import crf_job, network_scores
from segmentd.engine.lane import CpuLane
from segmentd.engine.loaded import make_ready
from segmentd.engine.predictor import make_predictor
from segmentd.engine.refiner import Refiner
from segmentd.engine.segmenter import PlaneJob
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, files, training
from segmentd.records import ClassInfo, PixelType, Region, SegmentOptions

from .. import tiny_model
from .. import tiny_networks as tiny

CRF = SegmentOptions(postprocessing="crf")
MARGINAL = SegmentOptions(postprocessing="crf", confidence="marginal")
RNG = np.random.default_rng(5)


def plane(height: int = 300, width: int = 340) -> npt.NDArray[np.float32]:
    y, x = np.mgrid[:height, :width]
    discs = np.hypot(y % 60 - 30, x % 70 - 35) < 18
    return (discs * 40 + RNG.normal(100, 25, discs.shape)).astype(np.float32)[None]


PLANE = plane()


@dataclass(frozen=True)
class Rows(ArraySource):
    """A plane that is read a few rows at a time."""

    @property
    def band_rows(self) -> int:
        return 256


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    features = feature_sets()["basic25"]
    y, x = np.mgrid[: PLANE.shape[1], : PLANE.shape[2]]
    inside = np.hypot(y % 60 - 30, x % 70 - 35) < 18
    labels = np.where(RNG.random(inside.shape) < 0.02, inside + 1, 0).astype(np.uint8)
    trained = training.train(
        training.collect(PLANE, labels, features, "none"), 2, feature_names(features, ("grey",))
    )
    card = replace(
        tiny_model.CARD,
        id="discs",
        display_name="discs",
        classes=(ClassInfo(1, "ground", "#000000"), ClassInfo(2, "disc", "#FFFFFF")),
        channels=("grey",),
        pixel_type=PixelType.FLOAT32,
    )
    path = tmp_path_factory.mktemp("models") / "discs.segmodel"
    bundle.save(bundle.seal(card, trained.forest), path)
    return path


@pytest.fixture(scope="module", params=["built in", pytest.param("pydensecrf", marks=pytest.mark.slow)])
def lane(request: pytest.FixtureRequest, model: Path) -> Iterator[CpuLane]:
    if request.param == "pydensecrf":
        pytest.importorskip("pydensecrf", reason="needs the extra crf, which does not build for Python 3.13")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segmentd.engine.lane.Refiner", lambda size: Refiner(size, request.param))
        lane = CpuLane(2)
    lane.load(model)
    yield lane
    lane.close()


def strips(lane: CpuLane, model: Path, source: ArraySource) -> npt.NDArray[np.uint8]:
    """Labels and marginals of a plane, one above the other."""
    parts = list(lane.segment(model, source, MARGINAL))
    return np.concatenate([np.concatenate([getattr(part, kind) for part in parts]) for kind in KINDS])


KINDS = ("labels", "confidence")


def test_tiles_leave_no_seams(lane: CpuLane, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lane.segment_array(model, PLANE, MARGINAL)
    monkeypatch.setattr(crf_job, "TILE_PX", 96)
    tiled = lane.segment_array(model, PLANE, MARGINAL)
    assert (tiled.labels != whole.labels).mean() < 1e-4
    assert np.abs(tiled.confidence.astype(int) - whole.confidence).max() <= 2
    monkeypatch.setattr(crf_job, "BORDER_PX", 0)
    seamy = lane.segment_array(model, PLANE, MARGINAL)
    assert (seamy.labels != whole.labels).mean() > 1e-3


def test_a_plane_read_by_rows_is_the_same(
    lane: CpuLane, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crf_job, "TILE_PX", 256)
    np.testing.assert_array_equal(strips(lane, model, Rows(PLANE)), strips(lane, model, ArraySource(PLANE)))


def test_confidence_and_minimum(lane: CpuLane, model: Path) -> None:
    plain = lane.segment_array(model, PLANE, SegmentOptions())
    refined, marginal = (lane.segment_array(model, PLANE, how) for how in (CRF, MARGINAL))
    assert (refined.confidence == 100).all()
    assert plain.confidence.min() < 90
    assert 40 < marginal.confidence.min() < 100
    np.testing.assert_array_equal(marginal.labels, refined.labels)
    assert (refined.labels != plain.labels).mean() > 0.002
    sure = SegmentOptions(postprocessing="crf", confidence="marginal", min_confidence=90)
    wanted = np.where(marginal.confidence >= 90, marginal.labels, 0)
    assert (wanted == 0).any()
    np.testing.assert_array_equal(lane.segment_array(model, PLANE, sure).labels, wanted)


def test_a_model_can_ask_for_it(lane: CpuLane, model: Path, tmp_path: Path) -> None:
    plain = bundle.load(model)
    path = tmp_path / "asking.segmodel"
    bundle.save(bundle.seal(replace(plain.card, postprocessing="crf"), plain.forest), path)
    lane.load(path)
    asked, not_wanted = (
        lane.segment_array(path, PLANE, SegmentOptions(postprocessing=how)).labels for how in (None, "none")
    )
    np.testing.assert_array_equal(asked, lane.segment_array(model, PLANE, CRF).labels)
    np.testing.assert_array_equal(not_wanted, lane.segment_array(model, PLANE, SegmentOptions()).labels)


def test_pixels_that_are_no_numbers_stay_unlabelled(lane: CpuLane, model: Path) -> None:
    holed = PLANE.copy()
    holed[0, 100:110, 50:90] = np.nan
    result, whole = (lane.segment_array(model, pixels, CRF) for pixels in (holed, PLANE))
    assert result.masked_pixels == 400
    assert not result.labels[100:110, 50:90].any() and not result.confidence[100:110, 50:90].any()
    assert (result.labels != whole.labels)[150:].mean() < 0.01


def test_the_forest_tells_its_scores(model: Path, lane: CpuLane) -> None:
    job = PlaneJob(make_predictor(bundle.load(model)), ArraySource(PLANE), slice(None), SegmentOptions())
    scores = job.scores(job.read(40, 200), Region(50, 33, 101, 77))
    assert scores.shape == (2, 101, 77) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-6)
    whole = lane.segment_array(model, PLANE, SegmentOptions())
    inside = (slice(50, 151), slice(33, 110))
    np.testing.assert_array_equal(scores.argmax(axis=0) + 1, whole.labels[inside])
    np.testing.assert_array_equal(np.rint(100 * scores.max(axis=0)), whole.confidence[inside])


def network(folder: Path, lane: CpuLane) -> Path:
    path = folder / "levels.czann"
    path.write_bytes(tiny.czann())
    lane.load(path)
    return path


def test_networks_go_through_too(lane: CpuLane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crf_job, "TILE_PX", 256)
    pixels = (np.clip(PLANE[:, :290, :270], 0, 255)).astype(np.uint8)
    path = network(tmp_path, lane)
    plain, refined = (lane.segment_array(path, pixels, how) for how in (SegmentOptions(), MARGINAL))
    assert set(np.unique(refined.labels)) <= {1, 2, 3}
    assert 0.001 < (plain.labels != refined.labels).mean() < 0.2
    monkeypatch.setattr(network_scores, "KEPT_BYTES", 0)  # nothing is kept, and nothing changes
    again = lane.segment_array(path, pixels, MARGINAL)
    np.testing.assert_array_equal(again.labels, refined.labels)
    np.testing.assert_array_equal(again.confidence, refined.confidence)


def test_a_network_tells_its_scores_of_any_rectangle(lane: CpuLane, tmp_path: Path) -> None:
    path = network(tmp_path, lane)
    pixels = RNG.integers(0, 256, (1, 130, 150)).astype(np.uint8)
    plane = make_ready(files.load(path), 1).job(ArraySource(pixels), slice(None), SegmentOptions()).scored()
    whole = plane.scores(plane.read(0, 130), Region(0, 0, 130, 150))
    np.testing.assert_array_equal(
        whole.argmax(axis=0) + 1, lane.segment_array(path, pixels, SegmentOptions()).labels
    )
    np.testing.assert_allclose(whole.sum(axis=0), 1, atol=1e-5)
    for region in (Region(0, 0, 1, 1), Region(31, 47, 40, 60), Region(129, 149, 1, 1), Region(7, 0, 33, 150)):
        part = plane.scores(plane.read(region.y, region.y + region.height), region)
        rows, columns = slice(region.y, region.y + region.height), slice(region.x, region.x + region.width)
        np.testing.assert_array_equal(part, whole[:, rows, columns])


def test_a_network_that_makes_images_is_refused(lane: CpuLane, tmp_path: Path) -> None:
    path = tmp_path / "denoise.czann"
    changes = {"InputShape": [32, 32, 1], "OutputShape": [32, 32, 1], "Type": "Regression", "Classes": None}
    path.write_bytes(tiny.czann(tiny.half(), **changes))
    lane.load(path)
    with pytest.raises(SegmentdError, match="postprocessing to none") as caught:
        lane.segment_array(path, np.zeros((1, 40, 50), np.uint8), CRF)
    assert caught.value.reason is Reason.BAD_FIELD


@pytest.mark.slow
def test_a_worker_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pydensecrf", reason="needs the extra crf, which does not build for Python 3.13")
    refiner = Refiner(1, "pydensecrf")
    flat = np.full((2, 8, 8), 0.5, np.float32)
    broken = crf.Window(flat, flat[:, :4])
    try:
        with pytest.raises(SegmentdError) as caught:
            refiner.marginals(broken, crf.Parameters())
        assert caught.value.reason is Reason.INTERNAL
        assert "conditional random field" in caught.value.message
        assert refiner.marginals(crf.Window(flat, flat), crf.Parameters()).shape == (2, 8, 8)
    finally:
        refiner.close()
    with pytest.raises(SegmentdError, match="shut down"):
        refiner.marginals(crf.Window(flat, flat), crf.Parameters())
