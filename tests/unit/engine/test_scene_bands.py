"""Scenes of different sizes: what is written has one size, whatever the bands."""

from __future__ import annotations

import numpy as np
import pytest

from segmentd.engine.scene_bands import filled_up
from segmentd.engine.segmenter import BandResult


def band(first_row: int, rows: int, width: int) -> BandResult:
    labels = np.full((rows, width), 2, np.uint8)
    pixels = np.full((3, rows, width), 500, np.uint16)
    return BandResult(first_row, labels, labels + 90, pixels, 7, 1.5, image=pixels[:1])


@pytest.mark.parametrize(
    ("scene", "frame"),
    [((300, 40), (300, 50)), ((300, 40), (1000, 40)), ((300, 40), (400, 90)), ((256, 9), (257, 9))],
)
def test_bands_become_a_whole_plane(scene: tuple[int, int], frame: tuple[int, int]) -> None:
    row, masked = 0, 0
    for first in range(0, scene[0], 256):
        for part in filled_up(band(first, min(256, scene[0] - first), scene[1]), scene, frame):
            rows = part.labels.shape[0]
            assert part.first_row == row
            assert rows % 256 == 0 or row + rows == frame[0]
            assert part.image is not None
            arrays = (part.labels, part.confidence, part.pixels, part.image)
            assert {values.shape[-2:] for values in arrays} == {(rows, frame[1])}
            inside = max(0, min(scene[0] - row, rows))
            for values, value in zip(arrays, (2, 92, 500, 500), strict=True):
                assert (values[..., :inside, : scene[1]] == value).all()
                assert not values[..., inside:, :].any()
                assert not values[..., scene[1] :].any()
            row += rows
            masked += part.masked_pixels
    assert row == frame[0]
    assert masked == 7 * -(-scene[0] // 256)


def test_a_scene_of_full_size_is_left_alone() -> None:
    one = band(0, 20, 30)
    assert next(filled_up(one, (20, 30), (20, 30))) is one
