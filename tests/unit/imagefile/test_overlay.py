from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from segmentd.imagefile import Overlay, overlay_png, picture_pngs
from segmentd.records import ClassInfo

CLASSES = (
    ClassInfo(1, "Background", "#0000FF"),
    ClassInfo(2, "nucleus", "#FF0000"),
    ClassInfo(3, "debris", "#00FF00"),
)


def draw(pixels: np.ndarray, labels: np.ndarray, **options: bool) -> np.ndarray:
    return np.asarray(imagecodecs.png_decode(overlay_png(pixels, labels, CLASSES, **options)))


@pytest.fixture
def ramp() -> np.ndarray:
    return np.tile(np.arange(100, dtype=np.uint16) * 40, (60, 1))[np.newaxis]


def test_background_and_unlabelled_pixels_show_the_bare_image(ramp: np.ndarray) -> None:
    labels = np.zeros((60, 100), np.uint8)
    labels[:30] = 1
    picture = draw(ramp, labels)
    assert picture.shape == (60, 100, 3)
    assert np.ptp(picture, axis=-1).max() == 0
    assert picture.min() == 0
    assert picture.max() == 255


def test_classes_are_tinted_and_the_image_stays_visible_under_them(ramp: np.ndarray) -> None:
    picture = draw(ramp, np.full((60, 100), 2, np.uint8)).astype(int)
    assert (picture[..., 0] > picture[..., 1]).all() or (picture[..., 0] >= picture[..., 1]).mean() > 0.9
    assert picture[30, 80, 1] - picture[30, 20, 1] > 60


def test_objects_have_an_outline_in_a_stronger_shade(ramp: np.ndarray) -> None:
    labels = np.ones((60, 100), np.uint8)
    labels[20:40, 40:60] = 2
    picture = draw(ramp, labels).astype(int)
    edge, inside, outside = picture[20, 50], picture[30, 50], picture[19, 50]
    assert edge[0] - edge[1] > inside[0] - inside[1] > 50
    assert np.ptp(outside) == 0


def test_colour_images_keep_their_hue_and_several_channels_become_grey() -> None:
    pixels = np.zeros((3, 40, 40), np.uint8)
    pixels[0, 10:30, 10:30] = 200
    labels = np.zeros((40, 40), np.uint8)
    assert draw(pixels, labels, rgb=True)[20, 20].tolist() == [255, 0, 0]
    assert np.ptp(draw(pixels, labels)[20, 20]) == 0


def test_colour_images_of_any_size_can_be_drawn() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 300, 400), np.uint8)
    assert draw(pixels, np.zeros((300, 400), np.uint8), rgb=True).shape == (300, 400, 3)


def test_an_overlay_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="none were added"):
        Overlay(3, 4).png(CLASSES)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1)])
def test_any_size_can_be_drawn(shape: tuple[int, int]) -> None:
    assert draw(np.ones((1, *shape), np.float32), np.ones(shape, np.uint8)).shape == (*shape, 3)


def test_pixels_that_are_no_numbers_do_not_spoil_the_contrast() -> None:
    pixels = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(1, 100, 100)
    pixels[0, 0, :3] = np.nan, np.inf, -np.inf
    picture = draw(pixels, np.zeros((100, 100), np.uint8))
    assert picture[0, :3, 0].tolist() == [0, 255, 0]
    assert 100 < picture[50, 50, 0] < 160
    assert draw(np.full((1, 3, 3), np.nan, np.float32), np.zeros((3, 3), np.uint8)).max() == 0


def test_large_planes_are_thinned_and_equal_input_gives_equal_bytes() -> None:
    pixels = np.zeros((1, 5, 4097), np.uint8)
    labels = np.ones((5, 4097), np.uint8)
    assert draw(pixels, labels).shape == (3, 2049, 3)
    assert overlay_png(pixels, labels, CLASSES) == overlay_png(pixels, labels, CLASSES)


def test_a_thumbnail_is_the_same_picture_small() -> None:
    picture = np.zeros((300, 1000, 3), np.uint8)
    picture[:, ::2] = 200
    pngs = dict(picture_pngs(picture, ["thumbnail", "overlay"]))
    thumbnail, overlay = (imagecodecs.png_decode(pngs[kind]) for kind in ("thumbnail", "overlay"))
    np.testing.assert_array_equal(overlay, picture)
    assert thumbnail.shape == (154, 512, 3)
    assert abs(thumbnail.astype(int) - 100).max() <= 5  # averaged, not thinned
    assert dict(picture_pngs(picture[:, :512], ["thumbnail"]))["thumbnail"] == draw_png(picture[:, :512])
    assert imagecodecs.png_decode(dict(picture_pngs(picture[:1], ["thumbnail"]))["thumbnail"]).shape == (
        1,
        512,
        3,
    )


def draw_png(picture: np.ndarray) -> bytes:
    return dict(picture_pngs(picture, ["overlay"]))["overlay"]
