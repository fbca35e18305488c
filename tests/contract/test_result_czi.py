"""CZI results hold what the OME-TIFF ones hold, also for pylibCZIrw and our own reader."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pylibCZIrw import czi

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import Region, read_region
from segmentd.imagefile.description import read_description
from segmentd.ingest.readers import open_image
from segmentd.records import ClassInfo, FrameInfo, PixelSize, PixelType, PlaneIndex, ResultForm
from segmentd.results import czi_child, czi_writer
from segmentd.results.store import ResultFile, ResultWriter
from segmentd.workers import WorkerPool

CLASSES = (ClassInfo(1, "background", "#0072B2"), ClassInfo(2, "Zellkern <µ> & co", "#E69F00"))
FRAME = FrameInfo(
    "CZI",
    PixelType.UINT16,
    300,
    270,
    ("a",),
    size_t=2,
    size_z=3,
    scenes=2,
    pixel_size=PixelSize(0.5, 0.2512345678, 2.0),
)
SMALL = FrameInfo("PNG", PixelType.UINT8, 20, 30, ("grey",))
KINDS = ("labels", "confidence", "classes")
CZI = ResultForm(container="czi")


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as started:
        yield started


def write(
    folder: Path,
    pool: WorkerPool,
    frame: FrameInfo = FRAME,
    form: ResultForm = CZI,
    heights: Sequence[int] = (),
    with_image: bool = False,
) -> dict[str, ResultFile]:
    """Write random results in bands of these heights; what lies beyond a scene is 0, as the engine has it."""
    random = np.random.default_rng(0)
    ends = list(itertools.accumulate(heights or (frame.height,)))
    with ResultWriter(
        folder, b"a.czi", KINDS, frame, CLASSES, "ab", "cd", with_image=with_image, form=form, workers=pool
    ) as writer:
        for index in frame.planes():
            labels = np.zeros((frame.height, frame.width), np.uint8)
            height, width = frame.scene_size(index.scene)
            labels[:height, :width] = random.integers(0, 3, (height, width), np.uint8)
            for y, end in zip((0, *ends), ends, strict=False):
                rows = labels[y:end]
                pixels = rows[np.newaxis].astype(frame.pixel_type.value)
                writer.write_band(index, y, rows, rows * np.uint8(50), pixels)
        return writer.commit()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, pool: WorkerPool) -> dict[str, ResultFile]:
    return write(tmp_path_factory.mktemp("czi"), pool)


def assert_same_pixels(files: dict[str, ResultFile], tiffs: dict[str, ResultFile], pages: int) -> None:
    for kind, file in files.items():
        about = read_description(file.path)
        assert about == read_description(tiffs[kind].path)
        regions = (Region(0, 0, about.height, about.width), Region(255, 3, 2, about.width - 5))
        for page, region in itertools.product(range(pages * (2 if kind == "classes" else 1)), regions):
            expected = read_region(tiffs[kind].path, page, region)
            np.testing.assert_array_equal(read_region(file.path, page, region), expected)


def test_they_hold_what_the_tiff_files_hold(
    files: dict[str, ResultFile], pool: WorkerPool, tmp_path: Path
) -> None:
    assert [file.path.name for file in files.values()] == [f"a.czi.{kind}.czi" for kind in KINDS]
    assert_same_pixels(files, write(tmp_path, pool, form=ResultForm()), 12)


def test_scenes_have_their_own_size_and_many_tiles_are_one_plane(
    pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(czi_writer, "_BLOCK_BYTES", 1)  # 256 rows at once
    sizes = ((700, 4200), (300, 100))
    frame = FrameInfo("CZI", PixelType.UINT8, 700, 4200, ("a",), scenes=2, scene_sizes=sizes)
    files = write(tmp_path / "czi", pool, frame)
    assert_same_pixels(files, write(tmp_path / "tiff", pool, frame, ResultForm()), 2)
    with czi.open_czi(str(files["labels"].path)) as opened:
        places = opened.scenes_bounding_rectangle
        tiles = []
        opened.enumerate_subblocks(lambda _, tile: tiles.append(tile.mIndex) or True)
    assert {scene: (place.h, place.w) for scene, place in places.items()} == dict(enumerate(sizes))
    assert places[0].x + places[0].w <= places[1].x
    assert sorted(tiles) == [0, 0, 1, 1, 2, 3, 4, 5]


def test_pylibczirw_sees_axes_scale_names_and_colours(files: dict[str, ResultFile]) -> None:
    for kind, channels in (("labels", 1), ("confidence", 1), ("classes", 2)):
        with czi.open_czi(str(files[kind].path)) as opened:
            box = opened.total_bounding_box
            assert (box["T"], box["Z"], box["C"]) == ((0, 2), (0, 3), (0, channels))
            assert set(opened.pixel_types.values()) == {"Gray8"}
            page = (1 * 2 + 1) * 3 + 2  # scene, T and Z
            plane = opened.read(plane={"C": channels - 1, "T": 1, "Z": 2}, scene=1)[..., 0]
            expected = read_region(files[kind].path, page * channels + channels - 1, Region(0, 0, 300, 270))
            np.testing.assert_array_equal(plane, expected)
            about = opened.metadata["ImageDocument"]["Metadata"]
            assert about["Information"]["Document"]["Title"] == "a.czi"
            attributes = opened.custom_attributes_metadata
            assert attributes is not None
        assert attributes.get("Class2") == (None if kind == "confidence" else "Zellkern <µ> & co #E69F00")
        shown = about["DisplaySetting"]["Channels"]["Channel"]
        if kind == "classes":
            assert [(one["@Name"], one["Color"]) for one in shown] == [
                (item.name, item.color.replace("#", "#FF")) for item in CLASSES
            ]
        else:
            assert float(shown["High"]) == pytest.approx(2 / 255 if kind == "labels" else 100 / 255, rel=1e-4)
            assert shown["@Name"] == {"labels": "labels", "confidence": "confidence (%)"}[kind]


def test_our_own_reader_sees_axes_and_scale(files: dict[str, ResultFile], pool: WorkerPool) -> None:
    with open_image(pool, files["classes"].path) as image:
        info = image.info
        plane = image.read_plane(PlaneIndex(1, 1, 2)).pixels
    assert (info.format, info.pixel_type, info.height, info.width) == ("CZI", PixelType.UINT8, 300, 270)
    assert (info.scenes, info.size_t, info.size_z) == (2, 2, 3)
    assert info.pixel_size == FRAME.pixel_size
    assert info.channel_names == tuple(item.name for item in CLASSES)
    assert info.channel_colors == tuple(item.color for item in CLASSES)
    whole = Region(0, 0, 300, 270)
    for channel in range(2):
        np.testing.assert_array_equal(
            plane[channel], read_region(files["classes"].path, 11 * 2 + channel, whole)
        )


def test_they_are_a_function_of_their_input(
    files: dict[str, ResultFile], pool: WorkerPool, tmp_path: Path
) -> None:
    again = write(tmp_path, pool, heights=(256, 44))
    assert [file.sha256 for file in again.values()] == [file.sha256 for file in files.values()]


@pytest.mark.parametrize("pixel_type", [PixelType.UINT16, PixelType.FLOAT32, PixelType.INT16])
def test_images_in_front_of_the_classes(pool: WorkerPool, tmp_path: Path, pixel_type: PixelType) -> None:
    frame = FrameInfo("TIFF", pixel_type, 20, 30, ("grey",))
    if pixel_type is PixelType.INT16:
        with pytest.raises(SegmentdError, match="int16 cannot be written as CZI") as caught:
            write(tmp_path, pool, frame, with_image=True)
        assert caught.value.reason is Reason.IMAGE_UNSUPPORTED
        assert list(tmp_path.iterdir()) == []
        return
    files = write(tmp_path / "czi", pool, frame, with_image=True)
    tiffs = write(tmp_path / "tiff", pool, frame, ResultForm(), with_image=True)
    for page in range(3):
        np.testing.assert_array_equal(
            read_region(files["classes"].path, page, Region(0, 0, 20, 30)),
            read_region(tiffs["classes"].path, page, Region(0, 0, 20, 30)),
        )


def test_whatever_is_wrong_with_a_file_is_a_result_that_cannot_be_read(
    pool: WorkerPool, tmp_path: Path
) -> None:
    path = write(tmp_path, pool, SMALL)["labels"].path
    region = Region(0, 0, 20, 30)
    with pytest.raises(SegmentdError, match="it has 1 pages"):
        read_region(path, 1, region)
    with pytest.raises(SegmentdError, match="no part of it"):
        read_region(path, 0, Region(0, 0, 21, 30))
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    for cut in [0, 20, 500, *random.integers(0, len(whole) // 2, 20).tolist()]:
        path.write_bytes(whole[:cut])
        with pytest.raises(SegmentdError) as caught:
            read_region(path, 0, region)
        assert caught.value.reason is Reason.RESULT_UNAVAILABLE
        with pytest.raises(SegmentdError):
            read_description(path)
    for place in random.integers(0, len(whole), 60).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            read_region(path, 0, region)
        except SegmentdError as error:
            assert error.reason is Reason.RESULT_UNAVAILABLE


def test_rows_and_planes_that_were_not_announced_are_refused(pool: WorkerPool, tmp_path: Path) -> None:
    with (
        ResultWriter(tmp_path, b"a.png", KINDS, SMALL, CLASSES, "ab", form=CZI, workers=pool) as writer,
        pytest.raises(ValueError, match="0 of 1 pages"),
    ):
        writer.commit()
    assert list(tmp_path.iterdir()) == []
    again = write(tmp_path, pool, SMALL)["labels"]
    assert read_description(again.path).width == 30


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pylibCZIrw", None)
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)
    with (
        (tmp_path / "a").open("wb+") as file,
        pytest.raises(SegmentdError, match=r"segmentd\[czi\]") as caught,
    ):
        czi_child.begin({"kind": "labels"}, [file.fileno()])
    assert caught.value.reason is Reason.MISSING_EXTRA
