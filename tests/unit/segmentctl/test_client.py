from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segmentctl import Client, DaemonError
from segmentctl.upload import CHUNK_BYTES, as_plane, receive, requests
from segmentd.v1 import segmentation_service_pb2 as pb


@pytest.fixture
def client(daemon: Any) -> Any:
    with Client(daemon.address) as client:
        yield client


def test_names_are_completed(client: Client) -> None:
    assert client.server().name == "server"
    assert client.model("nuclei").name == "models/nuclei"
    assert client.load_model("models/nuclei").name == "models/nuclei"
    assert client.unload_model("nuclei").name == "models/nuclei"
    assert client.watch("plate").name == "watches/plate"
    assert [watch.name for watch in client.watches()] == ["watches/plate"]


def test_lists_go_on_over_pages(daemon: Any, client: Client) -> None:
    for _ in range(5):
        daemon.publish()
    assert [model.name for model in client.models()] == ["models/m0", "models/m1"]
    assert [each.name for each in client.segmentations()] == [each.name for each in daemon.events]


def test_read_whole_and_in_part(daemon: Any, client: Client) -> None:
    daemon.publish()
    labels, confidence = daemon.pixels(1)
    got = client.read(daemon.events[0])
    np.testing.assert_array_equal(got[0], labels)
    np.testing.assert_array_equal(got[1], confidence)
    part, _ = client.read(daemon.events[0].name, (1, 2, 3, 2))
    np.testing.assert_array_equal(part, labels[1:4, 2:4])


def test_read_of_what_is_not_there(client: Client) -> None:
    with pytest.raises(DaemonError) as caught:
        client.read("watches/plate/segmentations/s9")
    assert caught.value.reason == "SEGMENTATION_NOT_FOUND"


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_segment_sends_little_endian_planes_in_chunks(daemon: Any, client: Client, dtype: str) -> None:
    image = np.zeros((2, 900, 700), np.dtype(dtype))
    image[0, 5:9, :3] = 258
    image[1, 0, 0] = 7
    labels, confidence = client.segment(image, "nuclei", min_confidence=40)
    np.testing.assert_array_equal(labels, image[0] > 0)
    assert (confidence == 40).all()
    head, data = daemon.uploads[0]
    assert (head.model, head.channel_count, head.height, head.width) == ("models/nuclei", 2, 900, 700)
    assert not head.HasField("border_pixels") and not head.HasField("tile_pixels")
    assert data == image.astype("<u2").tobytes()


def test_segment_plane_tells_progress_and_device(daemon: Any, client: Client) -> None:
    told: list[tuple[int, int]] = []
    image = np.ones((3, 4), np.uint8)[:, ::2]  # (Y, X), not contiguous
    result = client.segment_plane(
        image, "nuclei", border_pixels=0, tile_pixels=64, on_progress=lambda *done: told.append(done)
    )
    assert result.summary.device == "cpu"
    assert told == [(2, 6), (4, 6), (6, 6)]
    head, _ = daemon.uploads[0]
    assert head.HasField("border_pixels") and (head.border_pixels, head.tile_pixels) == (0, 64)


def test_a_refused_plane_says_why(client: Client) -> None:
    with pytest.raises(DaemonError) as caught:
        client.segment(np.ones((3, 4, 5), np.uint8), "nuclei")
    assert caught.value.reason == "CHANNEL_COUNT_MISMATCH"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 2)), "float64"),
        (np.zeros(3, np.uint8), r"\(3,\)"),
        (np.zeros((0, 4), np.uint8), "not empty"),
        (np.zeros((1, 2, 3, 4), np.uint8), "shape"),
    ],
)
def test_images_that_cannot_be_sent(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_plane(image)


def test_chunks_are_at_most_a_mebibyte() -> None:
    plane = np.arange(2 * 600 * 700, dtype=np.uint32).reshape(2, 600, 700)
    first, *rest = requests(pb.SegmentPlaneRequest.Head(), plane)
    assert first.WhichOneof("part") == "head"
    assert max(len(each.pixels) for each in rest) == CHUNK_BYTES
    assert b"".join(each.pixels for each in rest) == plane.tobytes()


def test_an_answer_without_summary_is_refused() -> None:
    with pytest.raises(DaemonError, match="without a summary"):
        receive(iter([]), 2, 2, None)


def test_a_watch_has_no_other_fields_than_those_of_the_configuration(daemon: Any) -> None:
    with Client(daemon.address) as client, pytest.raises(TypeError, match="a watch has no tiles; it has"):
        client.create_watch("a", "/in", "m", tiles=3)
