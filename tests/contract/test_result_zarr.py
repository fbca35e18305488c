"""OME-Zarr results: what other programs may rely on, and that they hold what the OME-TIFF ones hold."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr

from segmentd.errors import Reason, SegmentdError
from segmentd.imagefile import Region, omezarr, read_region
from segmentd.imagefile.description import read_description
from segmentd.imagefile.omexml import OmeChannel, OmeImage
from segmentd.imagefile.omezarr import OmeZarrWriter
from segmentd.records import ClassInfo, FrameInfo, PixelSize, PixelType, ResultForm
from segmentd.results.contents import digest_of
from segmentd.results.store import ResultFile, ResultWriter

CLASSES = (ClassInfo(1, "background", "#0072B2"), ClassInfo(2, "Zellkern <µ> & co", "#E69F00"))
FRAME = FrameInfo(
    "CZI", PixelType.UINT16, 300, 270, ("a",), size_t=2, size_z=3, scenes=2, pixel_size=PixelSize(0.5, 0.25)
)
SMALL = FrameInfo("PNG", PixelType.UINT8, 20, 30, ("grey",))
KINDS = ("labels", "confidence", "classes")
ZARR = ResultForm(container="ome-zarr")


def write(
    folder: Path,
    frame: FrameInfo = FRAME,
    form: ResultForm = ZARR,
    heights: Sequence[int] = (),
    image: Path | None = None,
) -> dict[str, ResultFile]:
    """Write random results in bands of these heights."""
    random = np.random.default_rng(0)
    ends = list(itertools.accumulate(heights or (frame.height,)))
    with ResultWriter(folder, b"a.czi", KINDS, frame, CLASSES, "ab", "cd", form=form, image=image) as writer:
        for index in frame.planes():
            labels = random.integers(0, 3, (frame.height, frame.width), np.uint8)
            for y, end in zip((0, *ends), ends, strict=False):
                rows = labels[y:end]
                writer.write_band(index, y, rows, rows * np.uint8(50), rows[np.newaxis].astype(np.uint16))
        return writer.commit()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ResultFile]:
    return write(tmp_path_factory.mktemp("zarr"))


def test_they_hold_what_the_tiff_files_hold(files: dict[str, ResultFile], tmp_path: Path) -> None:
    tiffs = write(tmp_path, form=ResultForm())
    regions = (Region(0, 0, 300, 270), Region(255, 3, 2, 267))
    for kind, file in files.items():
        assert file.path.name == f"a.czi.{kind}.ome.zarr"
        assert read_description(file.path) == read_description(tiffs[kind].path)
        for page, region in itertools.product(range(24 if kind == "classes" else 12), regions):
            np.testing.assert_array_equal(
                read_region(file.path, page, region), read_region(tiffs[kind].path, page, region)
            )


def test_axes_scale_names_and_colours(files: dict[str, ResultFile]) -> None:
    for kind, axes in (("labels", "tzyx"), ("confidence", "tzyx"), ("classes", "tczyx")):
        root = zarr.open_group(files[kind].path, mode="r")
        assert root.attrs["ome"] == {"version": "0.5", "bioformats2raw.layout": 3}
        assert root["OME"].attrs["ome"]["series"] == ["0", "1"]
        for scene in ("0", "1"):
            ome = root[scene].attrs["ome"]
            (multiscale,) = ome["multiscales"]
            assert "".join(axis["name"] for axis in multiscale["axes"]) == axes
            units = {axis["name"]: axis.get("unit") for axis in multiscale["axes"]}
            assert (units["y"], units["x"], units["z"]) == ("micrometer", "micrometer", None)
            (dataset,) = multiscale["datasets"]
            scale = dataset["coordinateTransformations"][0]["scale"]
            assert dict(zip(axes, scale, strict=True)) | {"c": 1} == {
                "t": 1,
                "c": 1,
                "z": 1,
                "y": 0.5,
                "x": 0.25,
            }
            array = root[f"{scene}/0"]
            assert array.metadata.dimension_names == tuple(axes)
            if kind == "labels":
                assert ome["image-label"] == {
                    "colors": [
                        {"label-value": 1, "rgba": [0, 0x72, 0xB2, 255]},
                        {"label-value": 2, "rgba": [0xE6, 0x9F, 0, 255]},
                    ],
                    "properties": [
                        {"label-value": 1, "class": "background"},
                        {"label-value": 2, "class": "Zellkern <µ> & co"},
                    ],
                }
            else:
                shown = [(one["label"], one["color"]) for one in ome["omero"]["channels"]]
                classes = [(item.name, item.color[1:]) for item in CLASSES]
                assert shown == (classes if kind == "classes" else [("confidence (%)", "FFFFFF")])


def test_they_are_a_function_of_their_input(
    files: dict[str, ResultFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = write(tmp_path / "again", heights=(256, 44))
    assert {kind: file.sha256 for kind, file in again.items()} == {
        kind: file.sha256 for kind, file in files.items()
    }
    shell = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    told = subprocess.run(["sh", "-c", shell], cwd=files["labels"].path, capture_output=True, check=True)
    assert told.stdout.split()[0].decode() == files["labels"].sha256


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
def test_large_planes_have_levels_and_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setattr(omezarr, "_BLOCK_BYTES", 1024 * 300)  # of three channels: 256 rows at once
    frame = FrameInfo("TIFF", PixelType.UINT8, 4500, 300, ("a",), pixel_size=PixelSize(1.0, 1.0))
    path = write(tmp_path, frame, ResultForm(compression, "ome-zarr"))["classes"].path
    tiff = write(tmp_path, frame, ResultForm())["classes"].path
    root = zarr.open_group(path, mode="r")
    datasets = root.attrs["ome"]["multiscales"][0]["datasets"]
    assert [one["coordinateTransformations"][0]["scale"] for one in datasets] == [
        [1, 2**level, 2**level] for level in range(4)
    ]
    assert datasets[2]["coordinateTransformations"][1]["translation"] == [0, 1.5, 1.5]
    import tifffile

    with tifffile.TiffFile(tiff) as opened:
        for level, expected in enumerate(opened.series[0].levels):
            np.testing.assert_array_equal(root[str(level)][:], expected.asarray())
    assert root["0"].shards == (1, 512, 512)
    assert root["0"].chunks == (1, 256, 256)


def test_labels_of_an_ome_zarr_name_it(tmp_path: Path) -> None:
    frame = FrameInfo("OME-Zarr 0.5", PixelType.UINT8, 20, 30, ("grey",))
    files = write(tmp_path / "results", frame, image=tmp_path / "in" / "a.czi")
    ome = zarr.open_group(files["labels"].path, mode="r").attrs["ome"]
    source = ome["image-label"]["source"]["image"]
    assert source == "../../in/a.czi"


def test_whatever_is_wrong_with_a_folder_is_a_result_that_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)["labels"].path
    region = Region(0, 0, 20, 30)

    def reason() -> Reason:
        with pytest.raises(SegmentdError) as caught:
            read_region(path, 0, region)
        return caught.value.reason

    with pytest.raises(SegmentdError, match="it has 1 pages"):
        read_region(path, 1, region)
    with pytest.raises(SegmentdError, match="no part of it"):
        read_region(path, 0, Region(0, 0, 21, 30))
    chunk = path / "0" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    assert reason() is Reason.RESULT_UNAVAILABLE
    (path / "0" / "zarr.json").write_text("{")
    assert reason() is Reason.RESULT_UNAVAILABLE
    for text in ("{}", "[]", '{"zarr_format": 3, "node_type": "group", "attributes": {"segmentd": 3}}'):
        (path / "zarr.json").write_text(text)
        assert reason() is Reason.RESULT_UNAVAILABLE


def test_rows_and_planes_that_were_not_announced_are_refused(tmp_path: Path) -> None:
    image = OmeImage(300, 9, (OmeChannel("a"), OmeChannel("b")), "x")
    writer = OmeZarrWriter(tmp_path / "a", image)
    for rows in ([np.zeros((255, 9), np.uint8)] * 2, [np.zeros((256, 9), np.uint8)]):
        with pytest.raises(ValueError, match=r"the next rows are|shorter"):
            writer.write_rows(rows)
    with pytest.raises(ValueError, match="0 of 2 pages"):
        writer.close()


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    monkeypatch.setitem(sys.modules, "zarr.storage", None)
    with pytest.raises(SegmentdError, match=r"segmentd\[zarr\]") as caught:
        write(tmp_path, SMALL)
    assert caught.value.reason is Reason.MISSING_EXTRA
    assert list(tmp_path.iterdir()) == []


def test_digests_see_every_byte_and_name(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)["labels"].path
    name = bytes(path)
    digests = {digest_of(name)}
    (path / "0" / "c" / "0" / "1").write_bytes(b"")
    digests.add(digest_of(name))
    (path / "0" / "c" / "0" / "1").rename(path / "0" / "c" / "0" / "2")
    digests.add(digest_of(name))
    (path / "0" / "c" / "0" / "2").write_bytes(b"x")
    digests.add(digest_of(name))
    assert len(digests) == 4
    (path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="link"):
        digest_of(name)
