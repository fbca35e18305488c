from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import (
    OmeChannel,
    OmeImage,
    OmeTiffWriter,
    read_region,
    read_simple,
    write_confidence_image,
    write_label_image,
)
from segmentd.records import ClassInfo, PixelSize, Region

GREY = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
COLOR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_grey_image_has_one_channel(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("tif"):
        tifffile.imwrite(path, GREY, compression="lzw")
    else:
        path.write_bytes(imagecodecs.png_encode(GREY))
    pixels = read_simple(path)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, GREY[np.newaxis])


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_colour_image_has_three_channels_without_alpha(tmp_path: Path, name: str, alpha: bool) -> None:
    path = tmp_path / name
    stored = np.dstack([COLOR, np.full((3, 4), 9, np.uint8)]) if alpha else COLOR
    if name.endswith("tif"):
        tifffile.imwrite(path, stored, photometric="rgb", extrasamples=["unassalpha"] if alpha else None)
    else:
        path.write_bytes(imagecodecs.png_encode(stored))
    np.testing.assert_array_equal(read_simple(path), np.moveaxis(COLOR, -1, 0))


def test_a_jpeg_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(np.full((16, 24, 3), (200, 100, 50), np.uint8), level=95))
    pixels = read_simple(path).astype(int)
    assert pixels.shape == (3, 16, 24)
    assert np.abs(pixels[:, 8, 12] - [200, 100, 50]).max() < 5


def test_channels_of_an_ome_tiff_are_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    stored = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    tifffile.imwrite(path, stored, metadata={"axes": "CYX"}, photometric="minisblack")
    np.testing.assert_array_equal(read_simple(path), stored)


def test_a_real_image_is_read_whole(shared_data: Path) -> None:
    path = shared_data / "two_channel_cells" / "images" / "nuclei_tubulin.ome.tif"
    np.testing.assert_array_equal(read_simple(path), tifffile.imread(path))


def stack(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((5, 8, 8), np.uint8), metadata={"axes": "ZYX"}, ome=True)


def text(path: Path) -> None:
    path.write_text("not an image")


def truncated(path: Path) -> None:
    tifffile.imwrite(path, GREY)
    path.write_bytes(path.read_bytes()[:60])


def broken_png(path: Path) -> None:
    path.write_bytes(imagecodecs.png_encode(COLOR)[:40])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (stack, Reason.IMAGE_UNSUPPORTED),
        (text, Reason.IMAGE_UNSUPPORTED),
        (truncated, Reason.IMAGE_CORRUPT),
        (broken_png, Reason.IMAGE_CORRUPT),
        (lambda path: None, Reason.IMAGE_UNREADABLE),
    ],
)
def test_other_files_are_refused_by_name_and_reason(tmp_path: Path, make, reason: Reason) -> None:
    path = tmp_path / "a.tif"
    make(path)
    with pytest.raises(SegmentdError, match=r"a\.tif") as caught:
        read_simple(path)
    assert caught.value.reason == reason


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("region") / "a.labels.ome.tif"
    pixels = np.random.default_rng(0).integers(0, 5, (3, 300, 700), np.uint8)
    image = OmeImage(300, 700, (OmeChannel("labels"),), "x", size_z=3)
    with path.open("wb+") as file, OmeTiffWriter(file, image) as writer:
        for plane in pixels:
            writer.write_plane(plane)
    return path, pixels


@given(data=st.data())
def test_a_region_is_that_part_of_the_plane(planes: tuple[Path, np.ndarray], data: st.DataObject) -> None:
    path, pixels = planes
    y, x = data.draw(st.integers(0, 299)), data.draw(st.integers(0, 699))
    region = Region(y, x, data.draw(st.integers(1, 300 - y)), data.draw(st.integers(1, 700 - x)))
    page = data.draw(st.integers(0, 2))
    expected = pixels[page, y : y + region.height, x : x + region.width]
    np.testing.assert_array_equal(read_region(path, page, region), expected)


@pytest.mark.parametrize(
    "region", [Region(0, 0, 301, 1), Region(-1, 0, 2, 2), Region(0, 700, 1, 1), Region(0, 0, 0, 5)]
)
def test_a_region_outside_the_plane_is_refused(planes: tuple[Path, np.ndarray], region: Region) -> None:
    with pytest.raises(SegmentdError) as caught:
        read_region(planes[0], 0, region)
    assert caught.value.reason == Reason.BAD_FIELD


def test_only_the_tiles_of_the_region_are_read(planes: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tif"
    data = bytearray(planes[0].read_bytes())
    with tifffile.TiffFile(planes[0]) as tiff:
        offset, count = tiff.pages[0].dataoffsets[5], tiff.pages[0].databytecounts[5]
    data[offset : offset + count] = bytes(count)
    damaged.write_bytes(data)
    np.testing.assert_array_equal(read_region(damaged, 0, Region(0, 0, 256, 700)), planes[1][0, :256])
    with pytest.raises(SegmentdError) as caught:
        read_region(damaged, 0, Region(0, 0, 300, 700))
    assert caught.value.reason == Reason.RESULT_UNAVAILABLE


def test_a_result_that_is_gone_or_no_tiff_is_unavailable(
    tmp_path: Path, planes: tuple[Path, np.ndarray]
) -> None:
    (tmp_path / "text.tif").write_text("text")
    for path, page in ((tmp_path / "gone.tif", 0), (tmp_path / "text.tif", 0), (planes[0], 3)):
        with pytest.raises(SegmentdError, match="segmented again") as caught:
            read_region(path, page, Region(0, 0, 1, 1))
        assert caught.value.reason == Reason.RESULT_UNAVAILABLE


def test_label_and_confidence_images_read_back(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2]], np.uint8)
    classes = (ClassInfo(1, "background", "#000000"), ClassInfo(2, "nucleus", "#FF0000"))
    write_label_image(tmp_path / "l.ome.tif", labels, classes, pixel_size=PixelSize(0.5, 0.5))
    write_confidence_image(tmp_path / "c.ome.tif", labels * 50)
    np.testing.assert_array_equal(read_simple(tmp_path / "l.ome.tif")[0], labels)
    np.testing.assert_array_equal(read_simple(tmp_path / "c.ome.tif")[0], labels * 50)
    with tifffile.TiffFile(tmp_path / "l.ome.tif") as tiff:
        assert "nucleus #FF0000" in tiff.ome_metadata
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.ome.tif", "l.ome.tif"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "l.ome.tif"
    path.write_text("old")
    with pytest.raises(ValueError, match="complex64"):
        write_label_image(path, np.zeros((2, 2), np.complex64))  # type: ignore[arg-type]
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"]


def test_importing_it_is_light() -> None:
    heavy = {"tifffile", "imagecodecs", "cv2", "skimage", "scipy"}
    code = f"import sys, segmentd.imagefile; print(*{heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
