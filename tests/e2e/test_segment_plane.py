"""`SegmentPlane`: pixels in, tiles out, and everything that a caller may get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from segmentctl import DaemonError
from segmentd.v1 import pixels_pb2
from segmentd.v1 import segmentation_service_pb2 as pb

from .daemon import wait_until
from .images import blobs
from .scene import LARGE, Scene
from .wire import Refusal, refusal

pytestmark = pytest.mark.e2e
INVALID = grpc.StatusCode.INVALID_ARGUMENT
PIXELS = blobs(40)
SIZE = PIXELS.nbytes


def head(**fields: Any) -> pb.SegmentPlaneRequest:
    right = {
        "model": "models/blobs",
        "pixel_type": pixels_pb2.PIXEL_TYPE_UINT16,
        "channel_count": 1,
        "height": PIXELS.shape[0],
        "width": PIXELS.shape[1],
    }
    return pb.SegmentPlaneRequest(head=pb.SegmentPlaneRequest.Head(**right | fields))


def chunks(*sizes: int) -> Iterator[pb.SegmentPlaneRequest]:
    """Send the plane in pieces, also such as end in the middle of a value; more than it has are zeros."""
    data = PIXELS.tobytes() + bytes(1 << 16)
    position = 0
    for size in sizes:
        yield pb.SegmentPlaneRequest(pixels=data[position : position + size])
        position += size


def refused(scene: Scene, *requests: pb.SegmentPlaneRequest) -> Refusal:
    return refusal(lambda: scene.wire.segmentations.SegmentPlane(iter(requests), timeout=30))


def assembled(
    scene: Scene, *requests: pb.SegmentPlaneRequest
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], pb.Segmentation]:
    planes = np.full((2, *PIXELS.shape), 255, np.uint8)
    answers = list(scene.wire.segmentations.SegmentPlane(iter(requests), timeout=30))
    for answer in answers[:-1]:
        block = answer.block
        y, x, height, width = (getattr(block.region, name) for name in ("y", "x", "height", "width"))
        for plane, data in zip(planes, (block.labels, block.confidence), strict=True):
            window = plane[y : y + height, x : x + width]
            assert (window == 255).all(), "a pixel came twice"
            window[:] = np.frombuffer(data, np.uint8).reshape(height, width)
    assert (planes != 255).all()
    assert answers[-1].WhichOneof("part") == "summary"
    return planes[0], planes[1], answers[-1].summary


def test_chunks_may_end_anywhere(scene: Scene) -> None:
    expected = scene.client.segment(PIXELS, "blobs")
    labels, confidence, summary = assembled(scene, head(), *chunks(1, 2, 0, 4097, SIZE - 4100))
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(confidence, expected[1])
    assert list(summary.label_pixel_counts) == np.bincount(labels.ravel(), minlength=3).tolist()
    assert summary.mean_confidence == pytest.approx(confidence.mean())
    assert (summary.state, summary.device, summary.model) == (summary.STATE_SUCCEEDED, "cpu", "models/blobs")
    assert (summary.name, summary.source, summary.version, len(summary.files)) == ("", b"", 0, 0)
    assert summary.compute_duration.ToTimedelta().total_seconds() > 0


def test_the_tile_does_not_matter_the_border_does(scene: Scene) -> None:
    whole = scene.client.segment_plane(PIXELS, "blobs")
    for options in ({"tile_pixels": 16}, {"tile_pixels": 37, "border_pixels": 300}, {"encoding": "zstd"}):
        again = scene.client.segment_plane(PIXELS, "blobs", **options)
        np.testing.assert_array_equal(again.labels, whole.labels)
        np.testing.assert_array_equal(again.confidence, whole.confidence)
    seams = scene.client.segment_plane(PIXELS, "blobs", tile_pixels=16, border_pixels=0)
    assert (seams.confidence != whole.confidence).any()


def test_minimum_confidence_takes_labels_away_and_leaves_confidence(scene: Scene) -> None:
    labels, confidence = scene.client.segment(PIXELS, "blobs")
    kept, same = scene.client.segment(PIXELS, "blobs", min_confidence=90)
    np.testing.assert_array_equal(same, confidence)
    np.testing.assert_array_equal(kept, np.where(confidence >= 90, labels, 0))
    assert (kept == 0).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (5, 3)])
def test_planes_of_any_size(scene: Scene, shape: tuple[int, int]) -> None:
    labels, confidence = scene.client.segment(PIXELS[: shape[0], : shape[1]], "blobs")
    assert labels.shape == confidence.shape == shape
    assert set(np.unique(labels)) <= {1, 2}


def test_the_display_name_will_do_and_other_byte_orders(scene: Scene) -> None:
    labels, _ = scene.client.segment(PIXELS.astype(">u2"), "A spare model")
    np.testing.assert_array_equal(labels, scene.client.segment(PIXELS, "blobs")[0])
    scene.client.unload_model("spare")


WRONG_HEADS: dict[str, tuple[dict[str, Any], str, str]] = {
    "type of the model": (
        {"pixel_type": pixels_pb2.PIXEL_TYPE_UINT8},
        "PIXEL_TYPE_MISMATCH",
        "convert to uint16",
    ),
    "no type": ({"pixel_type": 0}, "BAD_FIELD", "UINT16"),
    "unknown type": ({"pixel_type": 77}, "BAD_FIELD", "UINT16"),
    "channels": ({"channel_count": 2}, "CHANNEL_COUNT_MISMATCH", "model trained on such images"),
    "no channels": ({"channel_count": 0}, "BAD_FIELD", "must be"),
    "no rows": ({"height": 0}, "BAD_FIELD", "must be"),
    "negative width": ({"width": -4}, "BAD_FIELD", "must be"),
    "confidence": ({"min_confidence": 101}, "BAD_FIELD", "0 to 100"),
    "small tile": ({"tile_pixels": 15}, "BAD_FIELD", "16 to"),
    "negative border": ({"border_pixels": -1}, "BAD_FIELD", "0 to"),
    "huge border": ({"border_pixels": 1 << 20}, "BAD_FIELD", "0 to"),
    "path": ({"model": "models/../../x.segmodel"}, "BAD_FIELD", "not by a path"),
    "absolute path": ({"model": "models//tmp/x"}, "BAD_FIELD", "not by a path"),
    "no collection": ({"model": "blobs"}, "BAD_FIELD", "models/ID"),
}


@pytest.mark.parametrize("what", WRONG_HEADS)
def test_wrong_heads_are_refused_before_any_pixel(scene: Scene, what: str) -> None:
    fields, reason, advice = WRONG_HEADS[what]
    got = refused(scene, head(**fields))
    assert (got.code, got.reason) == (INVALID, reason)
    assert advice in got.message
    assert got.fields


def test_unknown_ambiguous_broken_and_too_large(scene: Scene) -> None:
    assert refused(scene, head(model="models/none")).reason == "MODEL_NOT_FOUND"
    assert refused(scene, head(model="models/Twin")).reason == "MODEL_AMBIGUOUS"
    assert refused(scene, head(model="models/broken")).reason == "MODEL_UNUSABLE"
    too_large = refused(scene, head(height=1 << 20, width=1 << 20))
    assert (too_large.code, too_large.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PLANE_TOO_LARGE")


def test_too_few_and_too_many_bytes_and_messages_out_of_order(scene: Scene) -> None:
    for requests in (
        (head(), *chunks(SIZE - 1)),
        (head(),),
        (head(), *chunks(SIZE, 1)),
        (head(), *chunks(SIZE + 2)),
        (head(), head()),
        tuple(chunks(SIZE)),
        (pb.SegmentPlaneRequest(),),
        (head(), pb.SegmentPlaneRequest(), *chunks(SIZE)),
        (),
    ):
        got = refused(scene, *requests)
        assert (got.code, got.reason) == (INVALID, "BAD_FIELD"), requests
        assert got.fields


def test_a_caller_that_goes_away_frees_the_device(scene: Scene) -> None:
    plane = np.tile(PIXELS, (12, 12))
    requests = [head(height=plane.shape[0], width=plane.shape[1], tile_pixels=64)]
    data = plane.tobytes()
    requests += [
        pb.SegmentPlaneRequest(pixels=data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20)
    ]
    for _ in range(4):
        call = scene.wire.segmentations.SegmentPlane(iter(requests))
        next(call)
        call.cancel()
    wait_until(lambda: scene.client.server().planes_in_flight == 0, "the device is free")
    assert scene.client.segment(PIXELS, "blobs")[0].shape == PIXELS.shape


def test_the_client_refuses_what_it_cannot_send(scene: Scene) -> None:
    with pytest.raises(ValueError, match="convert to one of"):
        scene.client.segment(PIXELS.astype(np.float64), "blobs")
    with pytest.raises(DaemonError, match="convert to uint16"):
        scene.client.segment(PIXELS.astype(np.float32), "blobs")
    with pytest.raises(DaemonError) as refused_call:
        scene.client.segment(np.zeros((3, *LARGE), np.uint16), "blobs")
    assert refused_call.value.reason == "CHANNEL_COUNT_MISMATCH"


def test_a_deadline_that_passes_is_told(scene: Scene) -> None:
    with pytest.raises(DaemonError) as caught:
        scene.client.segment_plane(blobs(3, LARGE), "blobs", deadline=0.0001)
    assert caught.value.reason == "DEADLINE_EXPIRED"
    in_time = scene.client.segment_plane(blobs(3, LARGE), "blobs", deadline=3600, priority=5)
    assert in_time.labels.shape == LARGE


def test_a_caller_who_gives_up_frees_the_slot(scene: Scene) -> None:
    def give_up(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.client.segment_plane(blobs(3, LARGE), "blobs", on_progress=give_up)
    wait_until(lambda: scene.client.server().planes_in_flight == 0, "nothing is in work")
