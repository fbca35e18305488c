"""A plane has the same labels in one piece, in tiles of any size, and in bands that are read one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from segmentd.compute.features import feature_names, feature_sets
from segmentd.engine.ahead import one_ahead
from segmentd.engine.lane import CpuLane
from segmentd.engine.segmenter import Tally, TileResult
from segmentd.engine.source import ArraySource, bands, streamed_band_rows
from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, training
from segmentd.records import ClassInfo, PixelType, SegmentOptions

from .. import tiny_model

RNG = np.random.default_rng(8)
PLANE = RNG.integers(0, 3000, (2, 150, 170)).astype(np.uint16)
PLANE[:, :, 60:] += 900
PLANE[:, 40:70] += 1500


def model_file(folder: Path, features: str, normalization: str, pixel_type: PixelType) -> Path:
    feature_set = feature_sets()[features]
    labels = np.zeros(PLANE.shape[1:], np.uint8)
    labels[::7, :50] = 1
    labels[1::7, 70:] = 2
    labels[45:60:5] = 3
    pixels = PLANE.astype(pixel_type.value)
    samples = training.collect(pixels, labels, feature_set, normalization)
    trained = training.train(samples, 3, feature_names(feature_set, ("a", "b")))
    card = replace(
        tiny_model.CARD,
        feature_set=features,
        classes=tuple(ClassInfo(value, f"c{value}", "#000000") for value in (1, 2, 3)),
        channel_count=2,
        channels=("a", "b"),
        pixel_type=pixel_type,
        border_px=feature_set.reach_px,
        normalization=normalization,
    )
    path = folder / f"{features}-{normalization}.segmodel"
    bundle.save(bundle.seal(card, trained.forest), path)
    return path


@pytest.fixture(scope="module")
def lane() -> Iterator[CpuLane]:
    lane = CpuLane(2)
    yield lane
    lane.close()


@pytest.fixture(scope="module", params=["basic25", "basic33"])
def plain(request: pytest.FixtureRequest, lane: CpuLane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = model_file(tmp_path_factory.mktemp("models"), request.param, "none", PixelType.UINT16)
    lane.load(path)
    return path


@pytest.fixture(scope="module")
def scaled(lane: CpuLane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = model_file(tmp_path_factory.mktemp("models"), "basic25", "percentile", PixelType.FLOAT32)
    lane.load(path)
    return path


@dataclass(frozen=True)
class BandSource(ArraySource):
    """A plane that gives no more rows than asked for, a copy each time."""

    rows_at_once: int = 16

    @property
    def band_rows(self) -> int:
        return self.rows_at_once

    def rows(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        assert 0 <= start < stop <= self.shape[1]
        return self.pixels[:, start:stop].copy()


def joined(
    lane: CpuLane, path: Path, source: ArraySource, options: SegmentOptions
) -> tuple[npt.NDArray, ...]:
    parts = list(lane.segment(path, source, options))
    ends = np.cumsum([0, *(len(part.labels) for part in parts)])
    assert [part.first_row for part in parts] == ends[:-1].tolist()
    assert {start for start, _ in bands(source)} <= set(ends.tolist())
    return (
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.pixels for part in parts], axis=1),
    )


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 170),
    tile=st.integers(16, 200),
    rows=st.integers(1, 160),
    extra=st.integers(0, 40),
)
def test_labels_do_not_depend_on_tiles_or_bands(
    lane: CpuLane, plain: Path, height: int, width: int, tile: int, rows: int, extra: int
) -> None:
    pixels = PLANE[:, :height, :width]
    whole = lane.segment_array(plain, pixels, SegmentOptions())
    assert whole.labels.shape == (height, width)
    options = SegmentOptions(tile_px=tile, border_px=40 + extra)
    tiled = lane.segment_array(plain, pixels, options)
    assert_array_equal(tiled.labels, whole.labels)
    assert_array_equal(tiled.confidence, whole.confidence)
    labels, confidence, same = joined(lane, plain, BandSource(pixels, rows), options)
    assert_array_equal(labels, whole.labels)
    assert_array_equal(confidence, whole.confidence)
    assert_array_equal(same, pixels)


def test_a_narrow_border_leaves_seams_that_depend_on_tiles_alone(lane: CpuLane, plain: Path) -> None:
    narrow = SegmentOptions(border_px=2, tile_px=32)
    whole = lane.segment_array(plain, PLANE, SegmentOptions())
    seams = lane.segment_array(plain, PLANE, narrow)
    assert 0 < np.mean(seams.labels != whole.labels) < 0.5
    labels, confidence, _ = joined(lane, plain, BandSource(PLANE, 64), narrow)
    assert_array_equal(labels, seams.labels)
    assert_array_equal(confidence, seams.confidence)


@pytest.mark.parametrize("rows", [1, 7, 64, 150])
def test_normalisation_and_masks_do_not_depend_on_bands(lane: CpuLane, scaled: Path, rows: int) -> None:
    pixels = PLANE.astype(np.float32)
    pixels[0, 10, 20:30] = np.nan
    pixels[1, 149, 0] = np.inf
    whole = lane.segment_array(scaled, pixels, SegmentOptions())
    assert whole.masked_pixels == 11
    assert not whole.labels[10, 20:30].any()
    assert not whole.confidence[149, 0].any()
    labels, confidence, _ = joined(lane, scaled, BandSource(pixels, rows), SegmentOptions())
    assert_array_equal(labels, whole.labels)
    assert_array_equal(confidence, whole.confidence)


def test_the_tally_adds_up(lane: CpuLane, plain: Path) -> None:
    tally = Tally(3)
    tiles: list[TileResult] = []
    options = SegmentOptions(min_confidence=90, tile_px=50)
    parts = []
    for band in lane.segment(plain, BandSource(PLANE, 40), options, on_tile=tiles.append):
        tally.add(band)
        parts.append(band)
    labels = np.concatenate([part.labels for part in parts])
    confidence = np.concatenate([part.confidence for part in parts])
    assert tally.label_pixel_counts == tuple(np.bincount(labels.ravel(), minlength=4))
    assert tally.mean_confidence == pytest.approx(confidence.mean())
    assert tally.label_pixel_counts[0] == np.count_nonzero(confidence < 90) > 0
    assert sum(tile.labels.size for tile in tiles) == labels.size


def test_strips_of_a_plane_come_as_they_are_done(lane: CpuLane, plain: Path) -> None:
    tall = np.tile(PLANE, (1, 4, 1))
    whole = lane.segment_array(plain, tall, SegmentOptions(tile_px=90))
    strips = list(lane.segment(plain, ArraySource(tall), SegmentOptions(tile_px=256)))
    assert [strip.first_row for strip in strips] == [0, 256, 512]
    assert_array_equal(np.concatenate([strip.labels for strip in strips]), whole.labels)
    assert_array_equal(np.concatenate([strip.confidence for strip in strips]), whole.confidence)
    assert_array_equal(strips[1].pixels, tall[:, 256:512])
    assert all(strip.compute_seconds > 0 for strip in strips)


def test_a_model_that_is_not_loaded_is_refused(lane: CpuLane, plain: Path) -> None:
    with pytest.raises(SegmentdError, match="not loaded") as caught:
        lane.segment_array(plain.with_name("other.segmodel"), PLANE, SegmentOptions())
    assert caught.value.reason is Reason.MODEL_UNUSABLE


def test_a_listener_that_raises_ends_the_plane(lane: CpuLane, plain: Path) -> None:
    def on_tile(tile: TileResult) -> None:
        raise RuntimeError("the caller is gone")

    with pytest.raises(RuntimeError, match="the caller is gone"):
        list(lane.segment(plain, ArraySource(PLANE), SegmentOptions(tile_px=16), on_tile=on_tile))
    assert lane.segment_array(plain, PLANE, SegmentOptions()).labels.all()


def test_a_source_that_fails_ends_the_plane(lane: CpuLane, plain: Path) -> None:
    class Broken(BandSource):
        def rows(self, start: int, stop: int) -> npt.NDArray[np.generic]:
            if start > 50:
                raise OSError("the share is gone")
            return super().rows(start, stop)

    with pytest.raises(OSError, match="the share is gone"):
        list(lane.segment(plain, Broken(PLANE, 16), SegmentOptions()))


def test_one_ahead_keeps_the_order_and_does_no_more_than_one_in_advance() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    for number, done in enumerate(one_ahead(work, range(6))):
        assert done == number * number
        assert len(begun) <= number + 3
    assert list(one_ahead(work, [])) == []


def test_streamed_bands_end_where_tiles_of_the_result_do() -> None:
    assert streamed_band_rows(16_000) == 1024
    assert streamed_band_rows(10**6) == 256
    assert streamed_band_rows(16) % 256 == 0


def test_an_unloaded_model_can_be_loaded_again(lane: CpuLane, plain: Path) -> None:
    card = lane.load(plain)
    assert replace(card, digest="") == replace(bundle.load(plain).card, digest="")
    lane.unload(plain)
    with pytest.raises(SegmentdError, match="not loaded"):
        lane.segment_array(plain, PLANE, SegmentOptions())
    lane.load(plain)
