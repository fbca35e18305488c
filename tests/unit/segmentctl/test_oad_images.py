"""Images of scripts: parts, channels, pixel types, files."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from segmentctl.oad import ApplicationException, Zen, ZenImage
from segmentctl.oad.names import feature_set, postprocessing, shown_feature_set, shown_postprocessing

STACK = np.arange(3 * 2 * 4 * 5 * 6, dtype=np.uint16).reshape(3, 2, 4, 5, 6)
subset = Zen.Processing.Utilities.CreateSubset
change = Zen.Processing.Utilities.ChangePixelType


def test_subsets_count_from_one() -> None:
    image = ZenImage(STACK)
    assert np.array_equal(subset(image, "C(2)"), STACK[:, :, 1])
    assert np.array_equal(subset(image, "T(2-3)|Z(1)|C(4)", False), STACK[1:, 0, 3])
    assert np.array_equal(subset(image, "X(1-2) | Y(5)").pixels, STACK[..., 4:, :2])
    assert subset(image, "C(3-4)").Metadata.ChannelNames == ("C3", "C4")
    for wrong in ("C(0)", "C(5)", "T(3-2)", "C", "C(1)T(1)", ""):
        with pytest.raises(ApplicationException):
            subset(image, wrong)


def test_pixel_types_keep_values_within_their_limits() -> None:
    image = ZenImage(np.array([[-3.0, 1.6, 300.0]], np.float32))
    assert np.asarray(change(image, "Gray8")).tolist() == [[0, 2, 255]]
    assert np.asarray(change(image, "Gray16")).tolist() == [[0, 2, 300]]
    assert change(image, "Gray16").Metadata.PixelType == "Gray16"
    assert np.asarray(change(ZenImage(STACK), "Gray32Float")).dtype == np.float32
    with pytest.raises(ApplicationException, match="Gray16"):
        change(image, "Gray12")


def test_channels_are_added_behind_the_others_and_only_if_they_fit() -> None:
    image = ZenImage(STACK)
    mask = ZenImage(np.full((3, 2, 1, 5, 6), 255, np.uint8))
    both = Zen.Processing.Utilities.AddChannels(image, mask)
    assert both.pixels.dtype == np.uint16
    assert np.array_equal(both.pixels[:, :, :4], STACK)
    assert np.array_equal(both.pixels[:, :, 4:], mask.pixels)
    own = image.Clone()
    own.AddChannel(mask, "mask")
    assert own.Metadata.GetChannelName(4) == "mask"
    assert image.Bounds.SizeC == 4
    with pytest.raises(ApplicationException, match="Gray16"):
        Zen.Processing.Utilities.AddChannels(mask, image)
    with pytest.raises(ApplicationException, match="sizes"):
        Zen.Processing.Utilities.AddChannels(image, STACK[0, 0])


def test_minimum_confidence_of_arrays_in_both_formats() -> None:
    labels = np.array([[1, 2, 2]], np.uint8)
    confidence = np.array([[49, 50, 100]], np.uint8)
    threshold = Zen.Processing.Segmentation.MinimumConfidence
    assert np.asarray(threshold(labels, confidence, 50)).tolist() == [[0, 2, 2]]
    channels = np.stack([labels == 1, labels == 2]) * np.uint8(255)
    assert np.asarray(threshold(channels, confidence, 50)).tolist() == [[[0, 0, 0]], [[0, 255, 255]]]
    with pytest.raises(ApplicationException, match="0 to 100"):
        threshold(labels, confidence, 101)


def test_names_of_both_sides() -> None:
    ours = ["basic25", "basic33", "deep64", "deep128", "deep256", "deep50", "deep70"]
    assert [feature_set(shown_feature_set(name)) for name in ours] == ours
    assert (shown_feature_set("basic25"), shown_feature_set("deep50")) == (
        "Basic Features 25",
        "Deep Features 50",
    )
    assert [postprocessing(shown_postprocessing(name)) for name in ("none", "crf")] == ["none", "crf"]
    assert (feature_set("basic33"), postprocessing("crf"), postprocessing("")) == ("basic33", "crf", "")


def test_simple_files_and_stacks_come_back_as_they_were_written(tmp_path: Path) -> None:
    for name in ("a.ome.tif", "a.tif"):
        ZenImage(STACK).Save(tmp_path / name)
        assert np.array_equal(Zen.Application.LoadImage(tmp_path / name).pixels, STACK)
    colour = np.moveaxis(np.arange(60, dtype=np.uint8).reshape(4, 5, 3), -1, 0)
    ZenImage(colour).Save(tmp_path / "c.png")
    assert np.array_equal(imagecodecs.imread(tmp_path / "c.png"), np.moveaxis(colour, 0, -1))
    assert np.array_equal(Zen.Application.LoadImage(str(tmp_path / "c.png")), colour)
    tifffile.imwrite(tmp_path / "c.tif", np.moveaxis(colour, 0, -1), photometric="rgb")
    assert np.array_equal(Zen.Application.LoadImage(tmp_path / "c.tif"), colour)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif", "a.tif", "c.png", "c.tif"]


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    for name in ("a.czi", "a.png"):
        with pytest.raises(ApplicationException, match=r"\.ome\.tif"):
            ZenImage(STACK).Save(tmp_path / name)
    with pytest.raises(ApplicationException, match="cannot be written"):
        ZenImage(np.zeros((2, 2))).Save(tmp_path / "a.tif")
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(STACK[0, 0, 0])
        writer.write(STACK[0, 0, 0, :3])
    with pytest.raises(ApplicationException, match="2 images"):
        Zen.Application.LoadImage(tmp_path / "two.tif")
    with pytest.raises(ApplicationException, match="not empty"):
        ZenImage(np.zeros((0, 2)))
    assert [path.name for path in tmp_path.iterdir()] == ["two.tif"]


@pytest.mark.parametrize("kind", ["gray8", "gray16", "gray32float", "bgr24"])
def test_czi_files_of_each_pixel_type(shared_data: Path, kind: str) -> None:
    folder = shared_data / "zeiss" / "generated"
    written = np.load(folder / f"pixel_{kind}.npy")
    pixels = np.asarray(Zen.Application.LoadImage(folder / f"pixel_{kind}.czi"))
    if written.shape[-1] == 3:  # blue, green, red
        written = np.moveaxis(written[..., ::-1], -1, 0)
    assert np.array_equal(pixels, written.reshape(pixels.shape))


def test_czi_stacks_sizes_and_scenes(shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "zeiss" / "real"
    image = Zen.Application.LoadImage(real / "T=3_Z=5_CH=2_X=240_Y=170.czi")
    assert image.pixels.shape == (3, 5, 2, 170, 240)
    expected = json.loads((shared_data / "zeiss" / "expected_czi.json").read_text())[f"real/{image.Name}"]
    for plane in expected["first_planes"]:
        pixels = image.pixels[plane["T"], plane["Z"], plane["C"]]
        assert hashlib.sha256(pixels.tobytes()).hexdigest().startswith(plane["sha256"])
    size = image.about.pixel_size
    found = {"X": size.x_um, "Y": size.y_um, "Z": size.z_um}
    assert found == pytest.approx({axis: metres * 1e6 for axis, metres in expected["scaling_m"].items()})
    assert list(image.Metadata.ChannelNames) == expected["channel_names"]
    with pytest.raises(ApplicationException, match="scenes"):
        Zen.Application.LoadImage(shared_data / "zeiss" / "generated" / "mosaic_S2_T2_Z3_C2.czi")
    with pytest.raises(ApplicationException, match="not there"):
        Zen.Application.LoadImage(tmp_path / "none.czi")
    (tmp_path / "bad.czi").write_bytes(b"ZISRAWFILE")
    with pytest.raises(ApplicationException, match="cannot be read"):
        Zen.Application.LoadImage(tmp_path / "bad.czi")


def test_importing_everything_loads_nothing_heavy() -> None:
    source = (
        "import sys; from segmentctl.oad import *; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"segmentctl", "numpy"} <= loaded
    assert loaded.isdisjoint({"cv2", "imagecodecs", "numba", "pylibCZIrw", "scipy", "sklearn", "tifffile"})
