from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.color import rgb2lab

from segmentd.imagefile import default_color, ome_color, parse_color
from segmentd.imagefile.colors import PALETTE

# Machado et al. 2009, severity 1.0, on linear RGB.
DEFICIENCIES = {
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


def lab(colors: tuple[str, ...], matrix: np.ndarray) -> np.ndarray:
    encoded = np.array([parse_color(color) for color in colors]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = (linear @ matrix.T).clip(0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))


def smallest_distance(colors: tuple[str, ...], matrix: np.ndarray) -> float:
    points = lab(colors, matrix)
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(points, 2))


def test_the_palette_is_long_and_its_colours_are_told_apart() -> None:
    assert len(PALETTE) >= 12
    assert smallest_distance(PALETTE, np.eye(3)) > 15


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_first_colours_are_told_apart_by_the_colour_blind(deficiency: str) -> None:
    assert smallest_distance(PALETTE[:6], np.array(DEFICIENCIES[deficiency])) > 10


def test_default_colours_start_with_the_first_class_and_repeat() -> None:
    assert default_color(1) == PALETTE[0]
    assert default_color(2) == PALETTE[1]
    assert default_color(len(PALETTE) + 1) == PALETTE[0]


@pytest.mark.parametrize("text", ["FF0000", "#FF000", "#FF00000", "#GG0000", "red", ""])
def test_other_spellings_of_a_colour_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="#RRGGBB"):
        parse_color(text)


@pytest.mark.parametrize(
    ("color", "number"), [("#FF0000", -16776961), ("#00FF00", 16711935), ("#0000FF", 65535), ("#ffffff", -1)]
)
def test_ome_colours_are_signed_rgba(color: str, number: int) -> None:
    assert ome_color(color) == number
