"""Blocks: they cover a rectangle exactly, none is large, and what is in them can be had back."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from segmentd.records import Region
from segmentd.rpc.blocks import MAX_BLOCK_PIXELS, block_message, split, tile_pieces
from segmentd.v1 import pixels_pb2

EDGES = st.one_of(st.integers(1, 40), st.sampled_from([511, 512, 513, 1023, 1024, 1025, 2500]))
CORNERS = st.integers(0, 3000)


@given(y=CORNERS, x=CORNERS, height=EDGES, width=EDGES)
def test_blocks_cover_a_region_exactly_and_stay_below_a_mebibyte(
    y: int, x: int, height: int, width: int
) -> None:
    covered = np.zeros((height, width), np.uint8)
    for part in split(Region(y, x, height, width)):
        assert 0 < part.height * part.width <= MAX_BLOCK_PIXELS
        assert min(part.y - y, part.x - x) >= 0
        covered[part.y - y :, part.x - x :][: part.height, : part.width] += 1
    assert (covered == 1).all()


def test_two_bytes_a_pixel_are_a_mebibyte_at_most() -> None:
    assert 2 * MAX_BLOCK_PIXELS == 1 << 20


@pytest.mark.parametrize("encoding", [0, pixels_pb2.ENCODING_RAW, pixels_pb2.ENCODING_ZSTD])
def test_the_blocks_of_a_tile_hold_its_pixels(encoding: pixels_pb2.Encoding) -> None:
    rng = np.random.default_rng(0)
    labels, confidence = rng.integers(0, 4, (2, 700, 1100), np.uint8)
    restored = np.zeros((2, 700, 1100), np.uint8)
    for piece in tile_pieces(Region(100, 200, 700, 1100), labels, confidence):
        block = block_message(*piece, encoding)
        part = block.region
        window = np.s_[part.y - 100 : part.y - 100 + part.height, part.x - 200 : part.x - 200 + part.width]
        for target, data in zip(restored, (block.labels, block.confidence), strict=True):
            if block.encoding == pixels_pb2.ENCODING_ZSTD:
                data = zstandard.decompress(data)
            target[window] = np.frombuffer(data, np.uint8).reshape(part.height, part.width)
    np.testing.assert_array_equal(restored, [labels, confidence])


def test_a_block_always_says_how_it_is_packed_and_may_be_without_confidence() -> None:
    labels = np.ones((2, 3), np.uint8)
    for asked, said in ((0, "RAW"), (77, "RAW"), (pixels_pb2.ENCODING_ZSTD, "ZSTD")):
        block = block_message(Region(0, 0, 2, 3), labels, None, asked)  # type: ignore[arg-type]
        assert pixels_pb2.Encoding.Name(block.encoding) == f"ENCODING_{said}"
        assert block.confidence == b""


def test_zstd_states_the_content_size() -> None:
    labels = np.zeros((300, 300), np.uint8)
    block = block_message(Region(0, 0, 300, 300), labels, labels, pixels_pb2.ENCODING_ZSTD)
    assert zstandard.frame_content_size(block.labels) == labels.size
    assert len(block.labels) < labels.size / 24
