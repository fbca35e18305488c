"""What other programs may rely on in result files: read back with tifffile."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
import tifffile

from segmentd.imagefile import OmeChannel, OmeImage, OmeTiffWriter, ome_color, ometiff
from segmentd.records import ClassInfo, FrameInfo, PixelSize, PixelType, ResultForm
from segmentd.results.store import ResultFile, ResultWriter

NAMESPACE = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
CLASSES = (ClassInfo(1, "background", "#0072B2"), ClassInfo(2, "Zellkern <µ> & co", "#E69F00"))
FRAME = FrameInfo(
    "TIFF", PixelType.UINT16, 300, 270, ("DAPI",), size_t=2, size_z=3, pixel_size=PixelSize(0.5, 0.25, 1.5)
)
LABELS = np.random.default_rng(0).integers(0, 3, (2, 3, 300, 270), np.uint8)
CONFIDENCE = np.random.default_rng(1).integers(0, 101, (2, 3, 300, 270), np.uint8)


def write(folder: Path, frame: FrameInfo = FRAME, digest: str = "ab" * 32) -> dict[str, ResultFile]:
    outputs = ("labels", "confidence", "classes")
    with ResultWriter(folder, b"a.tif", outputs, frame, CLASSES, digest, "model") as writer:
        for index in frame.planes():
            labels, confidence = LABELS[index.time, index.z], CONFIDENCE[index.time, index.z]
            writer.write_plane(index, labels, confidence, np.zeros((1, 300, 270), np.uint16))
        return writer.commit()


def ome(path: Path) -> ET.Element:
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        return ET.fromstring(tiff.ome_metadata)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ResultFile]:
    return write(tmp_path_factory.mktemp("results"))


def test_pixels_and_axes(files: dict[str, ResultFile]) -> None:
    for kind, expected, axes in (
        ("labels", LABELS, "TZYX"),
        ("confidence", CONFIDENCE, "TZYX"),
        ("classes", np.stack([LABELS == 1, LABELS == 2], axis=2) * np.uint8(255), "TZCYX"),
    ):
        with tifffile.TiffFile(files[kind].path) as tiff:
            assert tiff.series[0].axes == axes
            np.testing.assert_array_equal(tiff.asarray(), expected)


def test_pages_are_tiled_deflate_grey_and_say_nothing_of_time(files: dict[str, ResultFile]) -> None:
    with tifffile.TiffFile(files["labels"].path) as tiff:
        for page in tiff.pages:
            assert (page.tilelength, page.tilewidth) == (256, 256)
            assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK
            assert not {"DateTime", "Software"} & {tag.name for tag in page.tags}


def test_physical_sizes(files: dict[str, ResultFile]) -> None:
    for file in files.values():
        pixels = ome(file.path).find("ome:Image/ome:Pixels", NAMESPACE)
        assert pixels is not None
        sizes = [(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit")) for axis in "XYZ"]
        assert sizes == [("0.25", "µm"), ("0.5", "µm"), ("1.5", "µm")]
        with tifffile.TiffFile(file.path) as tiff:
            assert tiff.pages[0].resolution == (40_000, 20_000)
            assert tiff.pages[0].resolutionunit == tifffile.RESUNIT.CENTIMETER


def test_unknown_sizes_are_not_made_up(tmp_path: Path) -> None:
    frame = FrameInfo("PNG", PixelType.UINT8, 300, 270, ("grey",))
    files = write(tmp_path, frame)
    pixels = ome(files["labels"].path).find("ome:Image/ome:Pixels", NAMESPACE)
    assert pixels is not None
    assert not [name for name in pixels.keys() if name.startswith("Physical")]  # noqa: SIM118


def test_class_names_and_colours(files: dict[str, ResultFile]) -> None:
    channels = ome(files["classes"].path).findall(".//ome:Channel", NAMESPACE)
    assert [item.get("Name") for item in channels] == [item.name for item in CLASSES]
    assert [item.get("Color") for item in channels] == [str(ome_color(item.color)) for item in CLASSES]
    root = ome(files["labels"].path)
    annotation = root.find(".//ome:MapAnnotation[@Namespace='segmentd/classes']", NAMESPACE)
    assert annotation is not None
    entries = {item.get("K"): item.text for item in annotation.iterfind(".//ome:M", NAMESPACE)}
    assert entries == {"1": "background #0072B2", "2": "Zellkern <µ> & co #E69F00"}
    references = root.findall(".//ome:AnnotationRef", NAMESPACE)
    assert annotation.get("ID") in {item.get("ID") for item in references}


def test_files_are_a_function_of_their_input(files: dict[str, ResultFile], tmp_path: Path) -> None:
    again, other = write(tmp_path / "again"), write(tmp_path / "other", digest="cd" * 32)
    for kind, file in files.items():
        assert again[kind].path.read_bytes() == file.path.read_bytes()
        assert again[kind].sha256 == file.sha256
    roots = [ome(file.path) for file in (*files.values(), *other.values())]
    assert len({root.get("UUID") for root in roots}) == 6


def write_in_bands(folder: Path, shape: tuple[int, int], heights: Sequence[int]) -> dict[str, bytes]:
    """Two planes in bands of these heights; all kinds of files, by kind."""
    frame = FrameInfo("TIFF", PixelType.UINT8, *shape, ("a", "b"), size_z=2)
    labels = np.random.default_rng(0).integers(0, 3, (2, *shape), np.uint8)
    confidence = np.random.default_rng(1).integers(50, 101, (2, *shape), np.uint8)
    pixels = np.random.default_rng(2).integers(0, 256, (2, 2, *shape), np.uint8)
    ends = list(itertools.accumulate(heights))
    outputs = ("labels", "confidence", "classes", "overlay", "thumbnail")
    with ResultWriter(folder, b"a.tif", outputs, frame, CLASSES, "ab") as writer:
        for z, index in enumerate(frame.planes()):
            for y, end in zip((0, *ends), ends, strict=False):
                band = np.s_[..., y:end, :]
                writer.write_band(index, y, labels[z][band], confidence[z][band], pixels[z][band])
        return {kind: file.path.read_bytes() for kind, file in writer.commit().items()}


@pytest.mark.parametrize(
    ("shape", "cuts"),
    [
        ((700, 300), ([256, 256, 188], [512, 188], [256, 444])),
        ((512, 4100), ([256, 256],)),  # the overlay shows every second pixel
        ((8449, 20), ([256] * 33 + [1], [512, 7936, 1])),  # every third
    ],
)
def test_files_do_not_depend_on_how_a_plane_is_cut_into_bands(
    tmp_path: Path, shape: tuple[int, int], cuts: Sequence[Sequence[int]]
) -> None:
    whole = write_in_bands(tmp_path, shape, [shape[0]])
    assert set(whole) == {"labels", "confidence", "classes", "overlay", "thumbnail"}
    for heights in cuts:
        assert write_in_bands(tmp_path, shape, heights) == whole


@pytest.mark.parametrize(("shape", "levels"), [((4096, 300), 1), ((4097, 301), 4)])
def test_large_planes_have_smaller_levels(tmp_path: Path, shape: tuple[int, int], levels: int) -> None:
    y, x = np.indices(shape)
    labels = (1 + (y // 600 + x // 70) % 2).astype(np.uint8)
    confidence = (y % 2 * 10 + x % 2 * 80).astype(np.uint8)
    frame = FrameInfo("TIFF", PixelType.UINT8, *shape, ("a",), size_z=2, pixel_size=PixelSize(0.5, 0.25))
    outputs = ("labels", "confidence", "classes")
    with ResultWriter(tmp_path, b"a.tif", outputs, frame, CLASSES, "ab") as writer:
        for z, index in enumerate(frame.planes()):
            writer.write_plane(index, labels if z == 0 else 3 - labels, confidence, labels[np.newaxis])
        files = writer.commit()
    for kind, file in files.items():
        with tifffile.TiffFile(file.path) as tiff:
            assert len(tiff.pages) == (4 if kind == "classes" else 2)
            series = tiff.series[0]
            assert len(series.levels) == levels
            for number, level in enumerate(series.levels):
                assert level.shape[-2:] == tuple(-(-edge // 2**number) for edge in shape)
                assert level.keyframe.resolution == (40_000 / 2**number, 20_000 / 2**number)
            smallest = series.levels[-1].asarray()
        if kind == "confidence" and levels > 1:
            assert (smallest[:, :-1, :-1] == 45).all()
        if kind == "labels":
            np.testing.assert_array_equal(smallest[0], 3 - smallest[1])
            assert set(np.unique(smallest)) == {1, 2}
            step = 2 ** (levels - 1)
            assert np.mean(smallest[0] == labels[::step, ::step]) > 0.9
        if kind == "classes":
            assert set(np.unique(smallest)) == {0, 255}


def test_files_can_be_zstd(tmp_path: Path) -> None:
    form = ResultForm(compression="zstd")
    frame = FrameInfo("TIFF", PixelType.UINT8, 300, 270, ("grey",))
    with ResultWriter(tmp_path, b"a.tif", ("labels",), frame, CLASSES, "ab", form=form) as writer:
        writer.write_plane(next(frame.planes()), LABELS[0, 0], LABELS[0, 0], LABELS[:1, 0])
        path = writer.commit()["labels"].path
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.ZSTD
        np.testing.assert_array_equal(tiff.asarray(), LABELS[0, 0])


def peak_while_writing(folder: Path, frame: FrameInfo, outputs: Sequence[str]) -> int:
    """Bytes that Python and NumPy allocate to write a plane of noise in bands of 256 rows."""
    band = np.random.default_rng(0).integers(0, 256, (256, frame.width), np.uint8)
    pixels = band[np.newaxis].astype(np.uint16)
    tracemalloc.start()
    try:
        with ResultWriter(folder, b"a.tif", outputs, frame, CLASSES, "ab") as writer:
            for y in range(0, frame.height, 256):
                rows = min(256, frame.height - y)
                writer.write_band(next(frame.planes()), y, band[:rows], band[:rows], pixels[:, :rows])
            writer.commit()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_plane_larger_than_memory_needs_memory_for_a_band(tmp_path: Path) -> None:
    frame = FrameInfo("TIFF", PixelType.UINT16, 8192, 2048, ("a",))
    peak = peak_while_writing(tmp_path, frame, ("labels", "confidence", "classes"))
    assert peak < 6 * 256 * 2048 < 8192 * 2048 / 5


@pytest.mark.slow
def test_the_overlay_of_a_large_plane_needs_memory_for_its_picture(tmp_path: Path) -> None:
    frame = FrameInfo("TIFF", PixelType.UINT16, 16_000, 16_000, ("a",))
    assert peak_while_writing(tmp_path, frame, ("overlay",)) < 180 * 2**20


def test_other_readers_read_them(files: dict[str, ResultFile]) -> None:
    """OpenCV reads with libtiff."""
    for kind, expected in (
        ("labels", LABELS),
        ("classes", np.stack([LABELS == 1, LABELS == 2], axis=2) * np.uint8(255)),
    ):
        _, pages = cv2.imreadmulti(str(files[kind].path), flags=cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(np.stack(pages), expected.reshape(-1, 300, 270))


def test_xml_holds_no_character_references(files: dict[str, ResultFile]) -> None:
    """Bio-Formats blanks `&#`, and then takes the file for a plain TIFF."""
    with tifffile.TiffFile(files["labels"].path) as tiff:
        assert "µm" in tiff.ome_metadata
        assert "&#" not in tiff.ome_metadata


def test_names_that_xml_cannot_carry(tmp_path: Path) -> None:
    image = OmeImage(2, 2, (OmeChannel("a\0b\n\udcff"),), "x", name="\x1b[31m")
    file = io.BytesIO()
    with OmeTiffWriter(file, image) as writer:
        writer.write_plane(np.zeros((2, 2), np.uint8))
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        root = ET.fromstring(tiff.ome_metadata)
    channel = root.find(".//ome:Channel", NAMESPACE)
    assert channel is not None
    assert channel.get("Name") == "a\ufffdb\ufffd\ufffd"


def test_scenes_are_images_of_their_own() -> None:
    file = io.BytesIO()
    image = OmeImage(2, 3, (OmeChannel("labels"),), "x", name="s", scenes=2, size_t=2)
    with OmeTiffWriter(file, image) as writer:
        for value in range(4):
            writer.write_plane(np.full((2, 3), value, np.uint8))
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        assert [series.asarray()[:, 0, 0].tolist() for series in tiff.series] == [[0, 1], [2, 3]]


def test_a_file_is_bigtiff_only_when_it_must_be() -> None:
    def magic(edge: int) -> bytes:
        file = io.BytesIO()
        OmeTiffWriter(file, OmeImage(edge, edge, (OmeChannel("labels"),), "x"))
        return file.getvalue()[:4]

    assert magic(50_000) == b"II*\0"
    assert magic(65_536) == b"II+\0"


@pytest.mark.parametrize("limit", [10**9, 0], ids=["classic", "bigtiff"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 600), (257, 1), (3, 4), (300, 3)])
@pytest.mark.parametrize("pixel_type", [PixelType.UINT8, PixelType.UINT16, PixelType.FLOAT32])
def test_odd_sizes_read_back(
    monkeypatch: pytest.MonkeyPatch, limit: int, shape: tuple[int, int], pixel_type: PixelType
) -> None:
    monkeypatch.setattr(ometiff, "_CLASSIC_LIMIT", limit)
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (3, *shape)).astype(pixel_type.value)
    image = OmeImage(*shape, (OmeChannel("values"),), "x", pixel_type=pixel_type, size_z=3)
    with OmeTiffWriter(file, image) as writer:
        for plane in pixels:
            writer.write_plane(plane)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        assert tiff.is_bigtiff == (limit == 0)
        assert tiff.series[0].dtype == np.dtype(pixel_type.value)
        np.testing.assert_array_equal(tiff.asarray().reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    "plane", [np.zeros((2, 3), np.uint8), np.zeros((2, 2), np.uint16), np.zeros((2, 2, 2), np.uint8)]
)
def test_planes_that_were_not_announced_are_refused(plane: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a plane of this file"):
        OmeTiffWriter(io.BytesIO(), OmeImage(2, 2, (OmeChannel("labels"),), "x")).write_plane(plane)


def test_too_few_and_too_many_planes_are_refused() -> None:
    image = OmeImage(2, 2, (OmeChannel("labels"),), "x")
    writer = OmeTiffWriter(io.BytesIO(), image)
    with pytest.raises(ValueError, match="0 of 1 pages"):
        writer.close()
    writer = OmeTiffWriter(io.BytesIO(), image)
    writer.write_plane(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="has them all"):
        writer.write_plane(np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([np.zeros((255, 9), np.uint8)] * 2, "the next rows are"),
        ([np.zeros((256, 9), np.uint16)] * 2, "the next rows are"),
        ([np.zeros((256, 9), np.uint8)], "shorter"),
        ([np.zeros((256, 9), np.uint8)] * 3, "longer"),
    ],
)
def test_rows_that_were_not_announced_are_refused(channels: list[np.ndarray], message: str) -> None:
    writer = OmeTiffWriter(io.BytesIO(), OmeImage(300, 9, (OmeChannel("a"), OmeChannel("b")), "x"))
    with pytest.raises(ValueError, match=message):
        writer.write_rows(channels)


def test_a_plane_whose_last_rows_are_missing_is_not_complete() -> None:
    writer = OmeTiffWriter(io.BytesIO(), OmeImage(300, 9, (OmeChannel("a"),), "x"))
    writer.write_rows([np.zeros((256, 9), np.uint8)])
    with pytest.raises(ValueError, match="0 of 1 pages"):
        writer.close()
