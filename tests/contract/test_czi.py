"""CZI: what is read equals what two other readers agree on, and what was written."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pylibCZIrw import czi

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest import decode
from segmentd.ingest.readers import open_image
from segmentd.records import PixelSize, PlaneIndex
from segmentd.workers import WorkerPool

GIB = 1 << 30
FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "data" / "zeiss" / "expected_czi.json"
EXPECTED: dict[str, dict[str, Any]] = json.loads(FIXTURES.read_text()) if FIXTURES.is_file() else {}
DTYPES = {"Gray8": "uint8", "Gray16": "uint16", "Gray32Float": "float32", "Bgr24": "uint8", "Bgr48": "uint16"}
SAMPLES = {"Bgr24": 3, "Bgr48": 3}


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1, memory_bytes=3 * GIB) as started:
        yield started


@pytest.mark.parametrize("name", EXPECTED)
def test_sizes_and_metadata(name: str, pool: WorkerPool, shared_data: Path) -> None:
    expected = EXPECTED[name]
    with open_image(pool, shared_data / "zeiss" / name) as image:
        info = image.info
    sizes, scenes = expected["size"], list(expected["scenes"].values())
    shapes = [(height, width) for _, _, width, height in scenes] or [(sizes["Y"], sizes["X"])]
    assert (info.size_t, info.size_z, info.scenes) == (sizes["T"], sizes["Z"], len(shapes))
    assert (info.height, info.width) == tuple(np.max(shapes, axis=0))
    assert info.scene_sizes == (tuple(shapes) if len(set(shapes)) > 1 else ())
    types = [expected["pixel_types"][str(channel)] for channel in range(sizes["C"])]
    assert info.pixel_type.value == np.result_type(*(DTYPES[kind] for kind in types)).name
    assert info.channel_count == sum(SAMPLES.get(kind, 1) for kind in types)
    assert info.rgb == (types[0] in SAMPLES)
    if expected["channel_names"] and not info.rgb:
        assert list(info.channel_names) == expected["channel_names"]
    um = {axis: round(metres * 1e6, 12) for axis, metres in expected["scaling_m"].items()}
    found = (info.pixel_size.x_um, info.pixel_size.y_um, info.pixel_size.z_um)
    assert found == tuple(pytest.approx(um[axis], rel=1e-12) if axis in um else None for axis in "XYZ")


@pytest.mark.parametrize("name", EXPECTED)
def test_planes_are_read_exactly(name: str, pool: WorkerPool, shared_data: Path) -> None:
    with open_image(pool, shared_data / "zeiss" / name) as image:
        for plane in EXPECTED[name]["first_planes"]:
            height, width, *samples = plane["shape"]
            index = PlaneIndex(plane["S"] or 0, plane["T"], plane["Z"])
            pixels = image.read_plane(index).pixels
            assert not pixels[:, height:].any()
            assert not pixels[:, :, width:].any()
            own = slice(0, 3) if samples else slice(plane["C"], plane["C"] + 1)
            values = np.moveaxis(pixels[own, :height, :width], 0, -1).astype(plane["dtype"])
            assert hashlib.sha256(np.ascontiguousarray(values)).hexdigest().startswith(plane["sha256"])


def test_rows_are_those_of_the_plane(pool: WorkerPool, shared_data: Path) -> None:
    for name in ("generated/mosaic_S2_T2_Z3_C2.czi", "real/S3_1Pos_2Mosaic_T1_Z1_CH1.czi"):
        with open_image(pool, shared_data / "zeiss" / name) as image:
            assert image.row_block == 64
            for index in image.info.planes():
                whole = image.read_plane(index).pixels
                for start, stop in ((0, 1), (31, 100), (info_end := image.info.height - 1, info_end + 1)):
                    np.testing.assert_array_equal(image.read_rows(index, start, stop), whole[:, start:stop])


def write_czi(path: Path, pixels: npt.NDArray[Any], where: tuple[int, int] = (0, 0), **metadata: Any) -> Path:
    """Write an array (T, Z, C, Y, X)."""
    with czi.create_czi(str(path)) as writer:
        for t, z, c in np.ndindex(*pixels.shape[:3]):
            writer.write(pixels[t, z, c][..., None], location=where, plane={"T": t, "Z": z, "C": c})
        writer.write_metadata("image", **metadata)
    return path


def test_negative_coordinates_and_gaps(pool: WorkerPool, tmp_path: Path) -> None:
    path = tmp_path / "mosaic.czi"
    tiles = np.arange(1, 2 * 30 * 40 + 1, dtype=np.uint16).reshape(2, 30, 40, 1)
    with czi.create_czi(str(path)) as writer:
        writer.write(tiles[0], location=(-50, -20), plane={"C": 0, "T": 0, "Z": 0})
        writer.write(tiles[1], location=(10, 30), plane={"C": 0, "T": 0, "Z": 0})
    expected = np.zeros((80, 100), np.uint16)
    expected[:30, :40], expected[50:, 60:] = tiles[..., 0]
    with open_image(pool, path) as image:
        np.testing.assert_array_equal(image.read_plane(PlaneIndex()).pixels[0], expected)
        assert image.info.pixel_size == PixelSize()
        assert image.info.channel_names == ("channel 1",)


def test_all_planes_of_five_dimensions(pool: WorkerPool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 65_535, (3, 4, 2, 21, 33), dtype=np.uint16)
    path = write_czi(tmp_path / "x.czi", pixels, channel_names={0: "DAPI", 1: "GFP"}, scale_x=5e-7)
    with open_image(pool, path) as image:
        assert image.info.channel_names == ("DAPI", "GFP")
        assert image.info.pixel_size.x_um == 0.5
        for index in image.info.planes():
            np.testing.assert_array_equal(image.read_plane(index).pixels, pixels[index.time, index.z])


def test_nothing_but_the_descriptor_is_opened(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    opened: list[str] = []
    real = czi.open_czi
    monkeypatch.setattr(czi, "open_czi", lambda path: opened.append(path) or real(path))
    with (shared_data / "zeiss" / "generated" / "pixel_gray8.czi").open("rb") as file:
        args = {"name": "x.czi", "scene": 0, "time": 0, "z": 0}
        _, [pixels] = decode.read_plane(args, [file.fileno()])
        assert opened == [f"/proc/self/fd/{file.fileno()}"]
    assert pixels.shape == (1, 50, 60)


def test_without_the_extra_it_says_which(monkeypatch: pytest.MonkeyPatch, shared_data: Path) -> None:
    monkeypatch.setitem(sys.modules, "pylibCZIrw", None)
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)
    with (shared_data / "zeiss" / "generated" / "pixel_gray16.czi").open("rb") as file:
        value, _ = decode.inspect({"name": "x.czi"}, [file.fileno()])
        assert value["width"] == 60
        args = {"name": "x.czi", "scene": 0, "time": 0, "z": 0}
        with pytest.raises(SegmentdError, match=r"pip install 'segmentd\[czi\]'") as caught:
            decode.read_plane(args, [file.fileno()])
    assert caught.value.reason is Reason.MISSING_EXTRA
