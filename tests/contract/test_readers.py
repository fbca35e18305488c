"""What the readers return equals what is in the files, for every kind of file that is read."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.readers import OpenImage, open_image
from segmentd.records import PixelSize, PixelType, PlaneIndex
from segmentd.workers import WorkerPool

GIB = 1 << 30
RNG = np.random.default_rng(11)

# Files of the list that are not read for themselves, since the file that describes them lies beside them.
REFUSED = {
    f"real/companion/multifile-Z{number}.ome.tiff": r"part of the set of multifile\.companion\.ome; open that"
    for number in range(1, 6)
}
# Sets whose whole content the list does not tell: that of its planes is compared instead.
BY_PLANE = {"real/companion/multifile.companion.ome": [*REFUSED]}
# Files that are not compared bit by bit: with losses, or with alpha, which is left out.
COMPARED_OTHERWISE = {"generated/svs_like_jpeg.tif", "generated/rgba_unassociated.tif"}

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "data" / "reader" / "expected.json"
ENTRIES = json.loads(FIXTURES.read_text())["files"] if FIXTURES.is_file() else []
EXPECTED: dict[str, dict[str, Any]] = {entry["file"]: entry for entry in ENTRIES}
READ = [name for name in EXPECTED if name not in REFUSED and name not in BY_PLANE]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1, memory_bytes=3 * GIB) as started:
        yield started


def canonical(image: OpenImage, interleaved: bool) -> npt.NDArray[Any]:
    """All planes of the first scene in the order TCZYX, or T1ZYXS for samples of a pixel."""
    info = image.info
    planes = [image.read_plane(index).pixels for index in info.planes() if index.scene == 0]
    shape = (info.size_t, info.size_z, info.channel_count, info.height, info.width)
    pixels = (planes[0] if len(planes) == 1 else np.stack(planes)).reshape(shape)
    return np.moveaxis(pixels, 2, -1)[:, None] if interleaved else np.moveaxis(pixels, 2, 1)


def digest(pixels: npt.NDArray[Any], dtype: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels.astype(dtype, copy=False))).hexdigest()[:32]


@pytest.mark.parametrize("name", READ)
def test_real_files_are_read_exactly(name: str, pool: WorkerPool, shared_data: Path) -> None:
    expected = EXPECTED[name]["series"][0]
    sizes = expected["sizes"]
    with open_image(pool, shared_data / "reader" / name) as image:
        info = image.info
        pixels = canonical(image, interleaved="S" in sizes)
        image.check_unchanged()
    assert (info.size_t, info.size_z, info.height, info.width) == tuple(sizes[axis] for axis in "TZYX")
    assert info.scenes == 1
    assert info.channel_count == sizes["C"] * min(3, sizes.get("S", 1))
    assert info.rgb == ("S" in sizes)
    if "channels" in expected:
        assert list(info.channel_names) == expected["channels"]
    if name not in COMPARED_OTHERWISE:
        assert digest(pixels, expected["dtype"]) == expected["sha256_32"]


@pytest.mark.parametrize("name", READ)
def test_pixel_sizes_of_real_files(name: str, pool: WorkerPool, shared_data: Path) -> None:
    entry = EXPECTED[name]
    with open_image(pool, shared_data / "reader" / name) as image:
        size = image.info.pixel_size
    imagej = entry.get("imagej", {})
    if "physical_size_um" in entry["series"][0]:
        x_um, y_um, z_um = entry["series"][0]["physical_size_um"]
        assert size == PixelSize(y_um=y_um, x_um=x_um, z_um=z_um)
    elif "pixels_per_unit" in imagej:
        assert imagej["unit"] in ("micron", "\\u00B5m")
        assert size.x_um == pytest.approx(1 / imagej["pixels_per_unit"], rel=1e-5)
        assert size.y_um == size.x_um
        assert size.z_um == imagej.get("spacing")


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_not_read_say_why(name: str, pool: WorkerPool, shared_data: Path) -> None:
    with pytest.raises(SegmentdError, match=REFUSED[name]) as caught:
        open_image(pool, shared_data / "reader" / name)
    assert caught.value.reason is Reason.IMAGE_UNSUPPORTED


@pytest.mark.parametrize("name", BY_PLANE)
def test_planes_of_a_set_are_those_of_its_files(name: str, pool: WorkerPool, shared_data: Path) -> None:
    files = [EXPECTED[file]["series"][0] for file in BY_PLANE[name]]
    with open_image(pool, shared_data / "reader" / name) as image:
        planes = [image.read_plane(index).pixels for index in image.info.planes()]
        assert (image.info.size_z, len(image.parts)) == (len(files), len(files))
    assert [digest(pixels, "uint8") for pixels in planes] == [file["sha256_32"] for file in files]


def test_a_member_of_a_set_without_its_metadata_says_what_it_lacks(
    pool: WorkerPool, shared_data: Path, tmp_path: Path
) -> None:
    name = "companion_by_t_T1.ome.tif"
    (tmp_path / name).write_bytes((shared_data / "reader" / "generated" / name).read_bytes())
    with pytest.raises(SegmentdError, match=r"companion_by_t\.companion\.ome, which is not there") as caught:
        open_image(pool, tmp_path / name)
    assert caught.value.reason is Reason.IMAGE_INCOMPLETE


def test_jpeg_tiles_come_close(pool: WorkerPool, shared_data: Path) -> None:
    folder = shared_data / "reader" / "generated"
    _, lossy = read_all(pool, folder / "svs_like_jpeg.tif")
    _, exact = read_all(pool, folder / "rgb_interleaved.ome.tif")
    difference = lossy - exact.astype(int)
    assert abs(difference).max() <= EXPECTED["generated/svs_like_jpeg.tif"]["series"][0]["lossy_max_abs_diff"]
    assert abs(difference.mean()) < 0.1


def test_alpha_is_no_channel(pool: WorkerPool, shared_data: Path) -> None:
    with open_image(pool, shared_data / "reader" / "generated" / "rgba_unassociated.tif") as image:
        assert image.info.channel_names == ("Red", "Green", "Blue")
        colours = canonical(image, interleaved=True)
    assert digest(colours, "uint8") == EXPECTED["generated/rgb_planar.tif"]["series"][0]["sha256_32"]


def write_tiff(path: Path, pixels: npt.NDArray[Any], **options: Any) -> Path:
    tifffile.imwrite(path, pixels, **options)
    return path


def read_all(pool: WorkerPool, path: Path) -> tuple[OpenImage, npt.NDArray[Any]]:
    with open_image(pool, path) as image:
        return image, np.stack([image.read_plane(index).pixels for index in image.info.planes()])


TYPES = {"int8": "int16", "float16": "float32", "float64": "float32"} | {
    same: same for same in ("uint8", "uint16", "int16", "uint32", "float32")
}
CASES = [(c, b, t) for c in (None, "zlib", "lzw", "packbits", "zstd") for b in "<>" for t in TYPES]
CASES += [("jpeg2000", "<", "uint8"), ("jpeg2000", "<", "uint16")]  # of others it swaps bytes


@pytest.mark.parametrize(("compression", "byteorder", "stored"), CASES)
def test_every_type_and_compression(
    pool: WorkerPool, tmp_path: Path, compression: str | None, byteorder: str, stored: str
) -> None:
    given = TYPES[stored]
    pixels = (RNG.normal(0, 1, (37, 53)) * 20 + 128).astype(stored)
    options = {"compression": compression, "byteorder": byteorder, "rowsperstrip": 8}
    path = write_tiff(tmp_path / "x.tif", pixels, **options)
    image, read = read_all(pool, path)
    assert image.info.pixel_type is PixelType(given)
    assert read.dtype == given
    np.testing.assert_array_equal(read[0, 0], pixels.astype(given))


@pytest.mark.parametrize("stored", ["int32", "int64", "uint64", "complex64", "complex128"])
def test_other_types_are_refused(pool: WorkerPool, tmp_path: Path, stored: str) -> None:
    path = write_tiff(tmp_path / "x.tif", np.zeros((8, 8), stored))
    with pytest.raises(SegmentdError, match="not supported; save it as") as caught:
        open_image(pool, path)
    assert caught.value.reason is Reason.IMAGE_UNSUPPORTED


def test_twelve_bits_are_unpacked(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 4096, (21, 30), dtype=np.uint16)
    packed = imagecodecs.packints_encode(pixels, 12)
    data = io.BytesIO()
    tifffile.imwrite(data, np.frombuffer(packed, np.uint8).reshape(21, 45))
    changed = bytearray(data.getvalue())
    with tifffile.TiffFile(io.BytesIO(changed)) as tiff:
        tags = tiff.pages.first.tags
        for code, value in ((256, 30), (258, 12)):
            changed[tags[code].valueoffset] = value
    path = tmp_path / "x.tif"
    path.write_bytes(changed)
    image, read = read_all(pool, path)
    assert image.info.pixel_type is PixelType.UINT16
    np.testing.assert_array_equal(read[0, 0], pixels)


def test_scenes_are_images_of_equal_size(pool: WorkerPool, tmp_path: Path) -> None:
    fields = [RNG.integers(0, 9, (2, 20, 30), dtype=np.uint8) for _ in range(3)]
    path = tmp_path / "x.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for number, pixels in enumerate(fields):
            metadata = {"axes": "CYX", "Name": f"field {number}", "Channel": {"Name": ["DAPI", "FITC"]}}
            writer.write(pixels, photometric="minisblack", metadata=metadata)
        writer.write(np.zeros((7, 7), np.uint8), metadata={"axes": "YX", "Name": "overview"})
    image, read = read_all(pool, path)
    assert (image.info.scenes, image.info.channel_names) == (3, ("DAPI", "FITC"))
    np.testing.assert_array_equal(read, fields)


def test_channels_and_samples_are_all_channels(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 255, (2, 20, 30, 3), dtype=np.uint8)
    path = write_tiff(tmp_path / "x.ome.tif", pixels, ome=True, photometric="rgb", metadata={"axes": "CYXS"})
    image, read = read_all(pool, path)
    assert image.info.channel_count == 6
    assert not image.info.rgb
    np.testing.assert_array_equal(read[0], np.moveaxis(pixels, -1, 1).reshape(6, 20, 30))


def test_grey_with_alpha_is_grey(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 255, (20, 30, 2), dtype=np.uint8)
    options = {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"}
    image, read = read_all(pool, write_tiff(tmp_path / "x.tif", pixels, **options))
    assert image.info.channel_names == ("channel 1",)
    np.testing.assert_array_equal(read[0, 0], pixels[..., 0])


def test_labels_that_all_slices_of_a_channel_share_are_its_name(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 255, (2, 3, 20, 30), dtype=np.uint8)
    labels = ["DAPI", "GFP", "slice 3", "DAPI", "GFP", "slice 6"]
    path = write_tiff(tmp_path / "x.tif", pixels, imagej=True, metadata={"axes": "ZCYX", "Labels": labels})
    image, read = read_all(pool, path)
    assert image.info.channel_names == ("DAPI", "GFP", "channel 3")
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize(
    ("resolution", "unit", "size"),
    [
        ((40_000, 20_000), "CENTIMETER", (0.5, 0.25)),
        ((50_800, 50_800), "INCH", (0.5, 0.5)),
        ((72, 72), "INCH", (None, None)),
        ((96, 96), "INCH", (None, None)),
        ((300, 300), "INCH", (None, None)),
        ((1, 1), "INCH", (None, None)),
        ((28.35, 28.35), "CENTIMETER", (None, None)),
        ((40_000, 40_000), "NONE", (None, None)),
        ((0, 0), "CENTIMETER", (None, None)),
    ],
)
def test_resolutions_for_screens_are_no_pixel_sizes(
    pool: WorkerPool,
    tmp_path: Path,
    resolution: tuple[float, float],
    unit: str,
    size: tuple[float | None, float | None],
) -> None:
    options = {"resolution": resolution, "resolutionunit": unit, "metadata": None}
    image, _ = read_all(pool, write_tiff(tmp_path / "x.tif", np.zeros((8, 8), np.uint8), **options))
    assert (image.info.pixel_size.y_um, image.info.pixel_size.x_um) == size


def png(pixels: npt.NDArray[Any]) -> bytes:
    return bytes(imagecodecs.png_encode(pixels))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_png(pool: WorkerPool, tmp_path: Path, dtype: str, samples: int) -> None:
    shape = (23, 31) if samples == 1 else (23, 31, samples)
    pixels = RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    path = tmp_path / "x.png"
    path.write_bytes(png(pixels))
    image, read = read_all(pool, path)
    colours = pixels.reshape(23, 31, samples)[..., : 1 if samples < 3 else 3]
    assert image.info.format == "PNG"
    assert image.info.rgb == (samples > 2)
    assert image.info.channel_names == (("channel 1",) if samples < 3 else ("Red", "Green", "Blue"))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read[0], np.moveaxis(colours, -1, 0))


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "tif"])
def test_jpeg_by_content_and_not_by_name(pool: WorkerPool, tmp_path: Path, samples: int, suffix: str) -> None:
    y, x = np.mgrid[:40, :60]
    pixels = np.stack([y * 5, x * 4, 200 - y], -1)[..., :samples].astype(np.uint8).squeeze()
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(imagecodecs.jpeg8_encode(pixels, level=98))
    image, read = read_all(pool, path)
    assert image.info.format == "JPEG"
    difference = read[0].astype(int) - np.moveaxis(pixels.reshape(40, 60, samples), -1, 0)
    assert abs(difference).max() <= 8


def test_the_digest_is_that_of_the_bytes(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", RNG.integers(0, 9, (2000, 3000), dtype=np.uint8))
    with open_image(pool, path) as image:
        assert image.content_digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_plane_outside_is_an_error(pool: WorkerPool, tmp_path: Path) -> None:
    with open_image(pool, write_tiff(tmp_path / "x.tif", np.zeros((2, 8, 8), np.uint8))) as image:
        image.read_plane(PlaneIndex(z=1))
        for index in (PlaneIndex(z=2), PlaneIndex(time=1), PlaneIndex(scene=1), PlaneIndex(z=-1)):
            with pytest.raises(IndexError, match=r"x\.tif has no plane"):
                image.read_plane(index)


def test_files_that_change_while_they_are_read_are_found_out(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 9, (40, 50), dtype=np.uint8)
    path = write_tiff(tmp_path / "x.tif", pixels)
    with open_image(pool, path) as image:
        image.check_unchanged()
        with path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(SegmentdError, match=r"x\.tif was changed") as caught:
            image.check_unchanged()
    assert caught.value.reason is Reason.IMAGE_CHANGED
    with open_image(pool, path) as image:
        write_tiff(tmp_path / "y.tif", pixels).replace(path)
        with pytest.raises(SegmentdError, match=r"x\.tif was changed"):
            image.check_unchanged()
        path.unlink()
        with pytest.raises(SegmentdError, match=r"x\.tif is not there") as caught:
            image.check_unchanged()
    assert caught.value.reason is Reason.IMAGE_VANISHED


def test_a_file_cut_while_it_is_read_is_changed_and_not_corrupt(pool: WorkerPool, tmp_path: Path) -> None:
    pages = RNG.integers(0, 9, (2, 40, 50), dtype=np.uint8)
    path = write_tiff(tmp_path / "x.tif", pages, compression="zlib")
    with open_image(pool, path) as image:
        os.truncate(path, 300)
        with pytest.raises(SegmentdError) as caught:
            image.read_plane(PlaneIndex(z=1))
    assert caught.value.reason is Reason.IMAGE_CHANGED


def test_a_small_file_takes_one_call(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 9, (2, 40, 50), dtype=np.uint8)
    path = write_tiff(tmp_path / "x.tif", pixels)
    with WorkerPool(1) as closing, open_image(closing, path) as image:
        closing.close()
        assert image.content_digest == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(image.read_plane(PlaneIndex()).pixels[0], pixels[0])
        with pytest.raises(SegmentdError):
            image.read_plane(PlaneIndex(z=1))


def test_only_the_file_that_was_found_is_opened(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", np.zeros((8, 8), np.uint8))
    with open_image(pool, b"x.tif", folder=tmp_path) as image:
        stamp = image.stamp
    with open_image(pool, b"x.tif", folder=tmp_path, stamp=stamp) as image:
        assert image.name == "x.tif"
    os.utime(path, ns=(0, 0))
    with pytest.raises(SegmentdError) as caught:
        open_image(pool, b"x.tif", folder=tmp_path, stamp=stamp)
    assert caught.value.reason is Reason.IMAGE_CHANGED


def test_nothing_outside_the_folder_is_opened(pool: WorkerPool, tmp_path: Path) -> None:
    secret = write_tiff(tmp_path / "secret.tif", np.zeros((8, 8), np.uint8))
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "link.tif").symlink_to(secret)
    (folder / "loop").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.tif")
    for name in (b"link.tif", b"pipe.tif", b"../secret.tif", b"loop/secret.tif", b"a//b.tif", b"."):
        with pytest.raises(SegmentdError) as caught:
            open_image(pool, name, folder=folder)
        assert caught.value.reason in (Reason.IMAGE_UNSUPPORTED, Reason.IMAGE_VANISHED)
    with open_image(pool, folder / "link.tif") as image:  # a person may name a link
        assert image.info.height == 8


def ome(*images: str, uuid: str = "") -> str:
    return f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{uuid}>{"".join(images)}</OME>'


def ome_image(data: str, planes: int = 1) -> str:
    return (
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" '
        f'SizeZ="{planes}" SizeC="1" SizeT="1">{data}</Pixels></Image>'
    )


OTHER_FILE = (
    '<TiffData IFD="0"><UUID FileName="../secret.tif">urn:uuid:aaaaaaaa-0000-0000-0000-000000000000</UUID>'
    "</TiffData>"
)
OWN_UUID = ' UUID="urn:uuid:bbbbbbbb-0000-0000-0000-000000000000"'
BOMB = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY c "&a;&a;&a;&a;&a;&a;">]>' + ome(ome_image("&c;"))
HOSTILE_OME = {
    "entities": (BOMB, Reason.IMAGE_CORRUPT, "document type"),
    "another file": (ome(ome_image(OTHER_FILE), uuid=OWN_UUID), Reason.IMAGE_UNSUPPORTED, "another file"),
    "two files": (
        ome(ome_image(OTHER_FILE + OTHER_FILE.replace("aaaa", "bbbb"))),
        Reason.IMAGE_UNSUPPORTED,
        "in another file",
    ),
    "a set outside the folder": (
        ome(ome_image(OTHER_FILE + OTHER_FILE.replace("../secret", "x").replace("aaaa", "bbbb"))),
        Reason.IMAGE_UNSUPPORTED,
        "outside its folder",
    ),
    "no XML": ("<OME>" + "</OME", Reason.IMAGE_CORRUPT, "cannot be read"),
    "no planes": (ome(ome_image("")), Reason.IMAGE_CORRUPT, "does not fit"),
    "more planes than pages": (ome(ome_image("<TiffData/>", planes=7)), Reason.IMAGE_INCOMPLETE, "7 planes"),
    "planes without end": (
        ome(ome_image("<TiffData/>", planes=2_000_000_000)),
        Reason.IMAGE_INCOMPLETE,
        "2000000000 planes",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_OME)
def test_hostile_descriptions_are_refused(name: str, pool: WorkerPool, tmp_path: Path) -> None:
    text, reason, message = HOSTILE_OME[name]
    path = write_tiff(tmp_path / "x.tif", np.zeros((8, 8), np.uint8), description=text, metadata=None)
    with pytest.raises(SegmentdError, match=message) as caught:
        open_image(pool, path)
    assert caught.value.reason is reason


def test_colours_of_channels_are_those_of_the_description(pool: WorkerPool, tmp_path: Path) -> None:
    channels = {"Name": ["a", "b", "c"], "Color": [-16776961, 16711935, -1]}
    pixels = np.zeros((3, 20, 30), np.uint8)
    metadata = {"axes": "CYX", "Channel": channels}
    image, _ = read_all(pool, write_tiff(tmp_path / "x.ome.tif", pixels, metadata=metadata))
    assert image.info.channel_colors == ("#FF0000", "#00FF00", None)


WITHOUT_EXTRAS = """
import sys
EXTRAS = "pylibCZIrw zarr onnx onnxruntime tensorflow keras h5py cupy dask pydensecrf napari".split()
sys.modules.update(dict.fromkeys(EXTRAS))  # importing them fails
from segmentd.ingest import decode
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        value, [pixels] = decode.take_in({"name": path}, [file.fileno()])
    print(value["format"], *pixels.shape)
"""


def test_an_install_without_extras_reads_tiff_png_and_jpeg(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 255, (23, 31, 3), dtype=np.uint8)
    paths = [
        write_tiff(tmp_path / "x.tif", pixels, compression="zlib"),
        tmp_path / "x.png",
        tmp_path / "x.jpg",
    ]
    paths[1].write_bytes(png(pixels))
    paths[2].write_bytes(imagecodecs.jpeg8_encode(pixels))
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS, *paths], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["TIFF 3 23 31", "PNG 3 23 31", "JPEG 3 23 31"], done.stderr


def test_a_renamed_ome_tiff_is_read(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 9, (3, 20, 30), dtype=np.uint8)
    path = write_tiff(tmp_path / "a.ome.tif", pixels, metadata={"axes": "TYX"}, photometric="minisblack")
    image, read = read_all(pool, path.rename(tmp_path / "b.tif"))
    assert (image.info.format, image.info.size_t) == ("OME-TIFF", 3)
    np.testing.assert_array_equal(read[:, 0], pixels)


def test_damaged_pixels_are_a_fault_and_no_zeros(pool: WorkerPool, tmp_path: Path) -> None:
    for compression in ("zlib", "lzw", "zstd", "jpeg2000"):
        pixels = RNG.integers(0, 9, (64, 64), dtype=np.uint8)
        path = write_tiff(tmp_path / f"{compression}.tif", pixels, compression=compression, rowsperstrip=16)
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(path) as tiff:
            start, size = tiff.pages.first.dataoffsets[1], tiff.pages.first.databytecounts[1]
        data[start : start + size] = bytes(size)
        path.write_bytes(data)
        with pytest.raises(SegmentdError, match="cannot be decoded") as caught:
            open_image(pool, path)
        assert caught.value.reason is Reason.IMAGE_CORRUPT


def test_incomplete_files_are_not_opened(pool: WorkerPool, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", RNG.integers(0, 9, (64, 64), dtype=np.uint8))
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(SegmentdError, match=r"x\.tif is incomplete: .*copy it again") as caught:
        open_image(pool, path)
    assert caught.value.reason is Reason.IMAGE_INCOMPLETE


def test_a_file_that_is_not_there(pool: WorkerPool, tmp_path: Path) -> None:
    with pytest.raises(SegmentdError, match="is not there") as caught:
        open_image(pool, tmp_path / "x.tif")
    assert caught.value.reason is Reason.IMAGE_VANISHED


def test_an_image_too_large_for_a_worker_costs_one_try(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", np.zeros((3000, 3000), np.float64))
    with WorkerPool(1, memory_bytes=GIB // 6) as small, open_image(small, path) as image:
        with pytest.raises(SegmentdError) as caught:
            image.read_plane(PlaneIndex())
        assert caught.value.reason in (Reason.WORKER_MEMORY, Reason.WORKER_CRASHED)
        assert image.content_digest == hashlib.sha256(path.read_bytes()).hexdigest()


ROW_LAYOUTS = {
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "one strip": {"rowsperstrip": 1000, "compression": "zlib"},
    "tiles": {"tile": (32, 48), "compression": "lzw", "predictor": 2},
    "contiguous": {},
    "big endian": {"byteorder": ">", "rowsperstrip": 5},
    "separate colours": {"planarconfig": "separate", "photometric": "rgb", "rowsperstrip": 9},
    "separate colours in tiles": {
        "planarconfig": "separate",
        "photometric": "rgb",
        "tile": (16, 16),
        "compression": "zstd",
    },
}


@pytest.mark.parametrize("layout", ROW_LAYOUTS)
def test_rows_are_those_of_the_plane(layout: str, pool: WorkerPool, tmp_path: Path) -> None:
    options = ROW_LAYOUTS[layout]
    rng = np.random.default_rng(1)
    shape = (3, 100, 130) if "planarconfig" in options else (2, 3, 100, 130)
    pixels = rng.integers(0, 60_000, shape).astype(np.uint16)
    path = tmp_path / "rows.ome.tif" if len(shape) == 4 else tmp_path / "rows.tif"
    axes = {"axes": "ZCYX"} if len(shape) == 4 else None
    tifffile.imwrite(path, pixels, metadata=axes, **{"photometric": "minisblack", **options})
    with open_image(pool, path) as image:
        assert 1 <= image.row_block <= 100
        for index in image.info.planes():
            whole = image.read_plane(index).pixels
            for start, stop in ((0, 100), (0, 1), (99, 100), (31, 66), (7, 14)):
                np.testing.assert_array_equal(image.read_rows(index, start, stop), whole[:, start:stop])
        with pytest.raises(IndexError, match="no rows 50 to 101"):
            image.read_rows(PlaneIndex(), 50, 101)


def packed_tiff(values: npt.NDArray[np.uint16], order: str) -> bytes:
    """A TIFF of 12 bits a pixel, two pixels in three bytes, as cameras write it."""
    height, width = values.shape
    bits = ((values[..., None] >> np.arange(11, -1, -1)) & 1).astype(np.uint8)
    strip = np.packbits(bits.reshape(height, -1), axis=1).tobytes()
    strip += b"\0" * (len(strip) % 2)
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8 + len(strip))
    return head + strip + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_twelve_bits_a_pixel(order: str, pool: WorkerPool, tmp_path: Path) -> None:
    values = RNG.integers(0, 4096, (20, 31)).astype(np.uint16)
    (tmp_path / "a.tif").write_bytes(packed_tiff(values, order))
    with open_image(pool, tmp_path / "a.tif") as image:
        np.testing.assert_array_equal(image.read_plane(PlaneIndex()).pixels, values[None])
        np.testing.assert_array_equal(image.read_rows(PlaneIndex(), 3, 9), values[None, 3:9])


def test_a_palette_is_not_applied(pool: WorkerPool, tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (20, 31)).astype(np.uint8)
    colors = RNG.integers(0, 65536, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="palette", colormap=colors)
    with open_image(pool, tmp_path / "a.tif") as image:
        assert not image.info.rgb
        np.testing.assert_array_equal(image.read_plane(PlaneIndex()).pixels, values[None])
