"""Segmentations over the API: lists, single ones, their pixels and parts of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import tifffile
import zstandard

from segmentd.v1 import pixels_pb2
from segmentd.v1 import segmentation_service_pb2 as pb

from .scene import LARGE, SOURCES, Scene
from .wire import refusal

pytestmark = pytest.mark.e2e
INVALID, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


def test_segmentations_are_listed_page_by_page(scene: Scene) -> None:
    in_order = [result.segmentation for result in scene.in_order()]
    for parent in ("watches/hot", "watches/-"):
        request, sizes, listed = pb.ListSegmentationsRequest(parent=parent, page_size=2), [], []
        while True:
            page = scene.wire.segmentations.ListSegmentations(request)
            sizes.append(len(page.segmentations))
            listed += page.segmentations
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        assert sizes == [2, 2, 1]
        assert listed == in_order
    assert list(scene.client.segmentations("another")) == []


def test_one_segmentation(scene: Scene) -> None:
    for result in scene.results.values():
        assert scene.client.segmentation(result.segmentation.name) == result.segmentation


@pytest.mark.parametrize(
    "region",
    [
        (0, 0, 1, 1),
        (699, 799, 1, 1),
        (0, 0, 700, 1),
        (699, 0, 1, 800),
        (200, 250, 300, 290),
        (10, 0, 690, 800),
    ],
)
def test_regions(scene: Scene, region: tuple[int, int, int, int]) -> None:
    result = scene.results["5-large.tif"]
    assert result.labels is not None
    assert result.confidence is not None
    y, x, height, width = region
    window = np.s_[y : y + height, x : x + width]
    labels, confidence = scene.client.read(result.segmentation.name, region)
    np.testing.assert_array_equal(labels, result.labels[window])
    np.testing.assert_array_equal(confidence, result.confidence[window])


def test_blocks_cover_the_plane_once_and_stay_small(scene: Scene) -> None:
    request = pb.ReadSegmentationRequest(name=scene.name("5-large.tif"))
    blocks = [answer.block for answer in scene.wire.segmentations.ReadSegmentation(request)]
    covered = np.zeros(LARGE, int)
    for block in blocks:
        region = block.region
        covered[region.y : region.y + region.height, region.x : region.x + region.width] += 1
        assert len(block.labels) == len(block.confidence) == region.height * region.width <= 1 << 19
        assert block.encoding == pixels_pb2.ENCODING_RAW
    assert len(blocks) > 1
    assert (covered == 1).all()


def test_zstd_holds_the_same(scene: Scene) -> None:
    for source in ("2.tif", "5-large.tif"):
        result = scene.results[source]
        labels, confidence = scene.client.read(result.segmentation, encoding="zstd")
        np.testing.assert_array_equal(labels, result.labels)
        np.testing.assert_array_equal(confidence, result.confidence)
    request = pb.ReadSegmentationRequest(name=scene.name("2.tif"), encoding=pixels_pb2.ENCODING_ZSTD)
    (answer,) = scene.wire.segmentations.ReadSegmentation(request)
    assert answer.block.encoding == pixels_pb2.ENCODING_ZSTD
    for packed in (answer.block.labels, answer.block.confidence):
        assert zstandard.frame_content_size(packed) == answer.block.region.height * answer.block.region.width


@pytest.mark.parametrize(
    "region",
    [
        (-1, 0, 2, 2),
        (0, -1, 2, 2),
        (0, 0, 0, 5),
        (0, 0, 5, 0),
        (0, 0, 701, 1),
        (699, 799, 2, 1),
        (0, 800, 1, 1),
        (2**31 - 1, 0, 2**31 - 1, 1),
        (0, 0, -5, -5),
    ],
)
def test_regions_outside_the_plane_are_refused(scene: Scene, region: tuple[int, int, int, int]) -> None:
    y, x, height, width = region
    wanted = pixels_pb2.Region(y=y, x=x, height=height, width=width)
    request = pb.ReadSegmentationRequest(name=scene.name("5-large.tif"), region=wanted)
    refused = refusal(lambda: scene.wire.segmentations.ReadSegmentation(request))
    assert (refused.code, refused.reason, refused.fields) == (INVALID, "BAD_FIELD", ["region"])
    assert "700 x 800" in refused.message


def test_a_failed_segmentation_has_no_pixels(scene: Scene) -> None:
    request = pb.ReadSegmentationRequest(name=scene.name("1-bad.tif"))
    refused = refusal(lambda: scene.wire.segmentations.ReadSegmentation(request))
    assert (refused.code, refused.reason) == (PRECONDITION, "RESULT_UNAVAILABLE")


DAMAGE: dict[str, Callable[[bytes, int], bytes | None]] = {
    "deleted": lambda data, last_tile: None,
    "damaged at its end": lambda data, last_tile: data[:last_tile] + b"\x55" * (len(data) - last_tile),
    "cut at its end": lambda data, last_tile: data[: last_tile + 1],
    "cut at its start": lambda data, last_tile: data[:100],
    "empty": lambda data, last_tile: b"",
    "something else": lambda data, last_tile: b"a note",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_results_that_cannot_be_read_are_unavailable_and_stop_no_subscriber(scene: Scene, what: str) -> None:
    result = scene.results["5-large.tif"]
    labels = Path(result.segmentation.files["labels"].local_path)
    with tifffile.TiffFile(labels) as tiff:
        last_tile = max(tiff.pages[0].dataoffsets)
    away = labels.rename(scene.daemon.folder / "away.tif")
    damaged = DAMAGE[what](away.read_bytes(), last_tile)
    if damaged is not None:
        labels.write_bytes(damaged)
    try:
        request = pb.ReadSegmentationRequest(name=result.segmentation.name)
        refused = refusal(lambda: scene.wire.segmentations.ReadSegmentation(request))
        with scene.client.subscribe("hot", start="oldest", timeout=30) as stream:
            again = {each.segmentation.source_display: each for each in (next(stream) for _ in SOURCES)}
    finally:
        away.rename(labels)
    assert (refused.code, refused.reason) == (PRECONDITION, "RESULT_UNAVAILABLE")
    assert {source for source in again if again[source].labels is None} == {"1-bad.tif", "5-large.tif"}
    error = again["5-large.tif"].error
    assert error is not None
    assert error.reason == "RESULT_UNAVAILABLE"
    np.testing.assert_array_equal(scene.client.read(result.segmentation)[0], result.labels)
