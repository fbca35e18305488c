from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from segmentctl.assemble import PlaneAssembler, assemble
from segmentctl.errors import StreamError
from segmentd.v1 import pixels_pb2

Box = tuple[int, int, int, int]


def block(
    box: Box, labels: np.ndarray, confidence: np.ndarray | None, zstd: bool = False
) -> pixels_pb2.Block:
    y, x, height, width = box
    place = (slice(y, y + height), slice(x, x + width))
    pack = zstandard.ZstdCompressor(level=1).compress if zstd else bytes
    return pixels_pb2.Block(
        region=pixels_pb2.Region(y=y, x=x, height=height, width=width),
        labels=pack(labels[place].tobytes()),
        confidence=b"" if confidence is None else pack(confidence[place].tobytes()),
        encoding=pixels_pb2.ENCODING_ZSTD if zstd else pixels_pb2.ENCODING_RAW,
    )


def planes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(height * 1000 + width)
    shape = (height, width)
    return random.integers(0, 5, shape, np.uint8), random.integers(0, 101, shape, np.uint8)


@st.composite
def partitions(draw: st.DrawFn) -> tuple[int, int, list[Box]]:
    """A plane and rectangles that cover it exactly, in any order."""
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    boxes = [(0, 0, height, width)]
    for _ in range(draw(st.integers(0, 12))):
        y, x, h, w = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        if draw(st.booleans()) and h > 1:
            cut = draw(st.integers(1, h - 1))
            boxes += [(y, x, cut, w), (y + cut, x, h - cut, w)]
        elif w > 1:
            cut = draw(st.integers(1, w - 1))
            boxes += [(y, x, h, cut), (y, x + cut, h, w - cut)]
        else:
            boxes.append((y, x, h, w))
    return height, width, draw(st.permutations(boxes))


@given(partitions(), st.booleans(), st.booleans())
def test_blocks_in_any_order_give_the_plane(
    partition: tuple[int, int, list[Box]], zstd: bool, with_confidence: bool
) -> None:
    height, width, boxes = partition
    labels, confidence = planes(height, width)
    sent = confidence if with_confidence else None
    got_labels, got_confidence = assemble([block(box, labels, sent, zstd) for box in boxes], height, width)
    np.testing.assert_array_equal(got_labels, labels)
    if with_confidence:
        np.testing.assert_array_equal(got_confidence, confidence)
    else:
        assert got_confidence is None


@given(partitions(), st.data())
def test_a_missing_and_a_repeated_block_are_noticed(
    partition: tuple[int, int, list[Box]], data: st.DataObject
) -> None:
    height, width, boxes = partition
    blocks = [block(box, *planes(height, width)) for box in boxes]
    chosen = data.draw(st.sampled_from(blocks))
    with pytest.raises(StreamError, match="left out"):
        assemble([each for each in blocks if each is not chosen], height, width)
    with pytest.raises(StreamError, match="again"):
        assemble([*blocks, chosen], height, width)


def test_a_rectangle_of_a_plane_keeps_its_place() -> None:
    labels, confidence = planes(20, 30)
    got, _ = assemble([block((5, 7, 4, 6), labels, confidence)], 4, 6, y=5, x=7)
    np.testing.assert_array_equal(got, labels[5:9, 7:13])


@pytest.mark.parametrize("box", [(0, 0, 5, 4), (3, 0, 2, 4), (0, 3, 1, 2)])
def test_a_block_outside_is_refused(box: Box) -> None:
    with pytest.raises(StreamError, match="outside"):
        PlaneAssembler(4, 4).add(block(box, *planes(9, 9)))


@pytest.mark.parametrize("region", [{"y": -1}, {"x": -1}, {"height": 0}, {"width": -1}])
def test_an_impossible_region_is_refused(region: dict[str, int]) -> None:
    message = block((0, 0, 1, 1), *planes(4, 4))
    message.region.MergeFrom(pixels_pb2.Region(**region))
    for field, value in region.items():
        setattr(message.region, field, value)
    with pytest.raises(StreamError, match="outside"):
        PlaneAssembler(4, 4).add(message)


def test_bytes_must_fit_the_region() -> None:
    message = block((0, 0, 2, 2), *planes(4, 4))
    message.labels = b"123"
    with pytest.raises(StreamError, match="4 pixels has 3 bytes of labels"):
        PlaneAssembler(4, 4).add(message)


def test_a_zstd_frame_cannot_claim_more_than_its_region() -> None:
    message = block((0, 0, 2, 2), *planes(4, 4), zstd=True)
    message.labels = zstandard.ZstdCompressor().compress(bytes(1 << 24))
    with pytest.raises(StreamError, match="claims 16777216 bytes"):
        PlaneAssembler(4, 4).add(message)


def test_garbage_is_not_zstd() -> None:
    message = block((0, 0, 2, 2), *planes(4, 4), zstd=True)
    message.confidence = b"\0" * 20
    with pytest.raises(StreamError, match="confidence of a block cannot be unpacked"):
        PlaneAssembler(4, 4).add(message)


@pytest.mark.parametrize("with_confidence_first", [True, False])
def test_confidence_comes_with_all_blocks_or_none(with_confidence_first: bool) -> None:
    labels, confidence = planes(2, 4)
    blocks = [block((0, 0, 1, 4), labels, confidence), block((1, 0, 1, 4), labels, None)]
    with pytest.raises(StreamError, match="some blocks bring confidence"):
        assemble(blocks if with_confidence_first else blocks[::-1], 2, 4)


def test_an_unknown_encoding_and_an_empty_plane_are_refused() -> None:
    message = block((0, 0, 1, 1), *planes(2, 2))
    message.encoding = pixels_pb2.ENCODING_UNSPECIFIED
    with pytest.raises(StreamError, match="does not know"):
        PlaneAssembler(2, 2).add(message)
    with pytest.raises(StreamError, match="0 x 3"):
        PlaneAssembler(0, 3)
