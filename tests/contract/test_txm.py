"""TXM and TXRM: what is read equals what was written, and what olefile finds in a real file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import olefile
import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.ingest.readers import open_image
from segmentd.records import PixelSize, PlaneIndex
from segmentd.workers import WorkerPool

GENERATED = {
    "volume_u16_120x20x32.txm": ((np.arange(120 * 20 * 32) % 65521).astype("u2").reshape(120, 20, 32), 0.75),
    "volume_f32_5x33x70.txm": (np.linspace(-1, 1, 5 * 33 * 70, dtype="f4").reshape(5, 33, 70), 1.5),
    "projections_u8_3x20x31.txrm": ((np.arange(3 * 20 * 31) % 251).astype("u1").reshape(3, 20, 31), 0.5),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(1) as started:
        yield started


@pytest.mark.parametrize("name", GENERATED)
def test_volumes_are_read_exactly(name: str, pool: WorkerPool, shared_data: Path) -> None:
    volume, size_um = GENERATED[name]
    with open_image(pool, shared_data / "zeiss" / "generated" / name) as image:
        info = image.info
        assert (info.size_z, info.height, info.width) == volume.shape
        assert info.pixel_type.value == volume.dtype.name
        assert info.pixel_size == PixelSize(size_um, size_um, size_um)
        for index in info.planes():
            np.testing.assert_array_equal(image.read_plane(index).pixels[0], volume[index.z])
        np.testing.assert_array_equal(image.read_rows(PlaneIndex(z=1), 3, 7)[0], volume[1, 3:7])


def test_projections_of_a_real_scan(pool: WorkerPool, shared_data: Path) -> None:
    path = shared_data / "zeiss" / "real" / "txrm_test_chip_tomo.txrm"
    with open_image(pool, path) as image, olefile.OleFileIO(path) as ole:
        info = image.info
        assert (info.format, info.size_z, info.height, info.width) == ("TXRM", 7, 256, 256)
        assert info.pixel_size.x_um == pytest.approx(0.1558, abs=1e-4)
        assert info.pixel_size.z_um is None
        for index in info.planes():
            data = ole.openstream(f"ImageData1/Image{index.z + 1}").read()
            expected = np.frombuffer(data, "<u2").reshape(256, 256)
            np.testing.assert_array_equal(image.read_plane(index).pixels[0], expected)


def test_a_cut_file_is_incomplete_wherever_it_ends(
    pool: WorkerPool, shared_data: Path, tmp_path: Path
) -> None:
    data = (shared_data / "zeiss" / "generated" / "volume_f32_5x33x70.txm").read_bytes()
    path = tmp_path / "cut.txm"
    for size in (0, 7, 100, 511, 512, 600, 5000, len(data) // 2, len(data) - 600):
        path.write_bytes(data[:size])
        with pytest.raises(SegmentdError) as caught:
            open_image(pool, path)
        assert caught.value.reason is Reason.IMAGE_INCOMPLETE, size


def test_fewer_images_than_taken_are_incomplete(pool: WorkerPool, shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "zeiss" / "generated" / "volume_f32_5x33x70.txm").read_bytes()
    path = tmp_path / "x.txm"
    path.write_bytes(data.replace("Image3\0".encode("utf-16-le"), "Imago3\0".encode("utf-16-le")))
    with pytest.raises(SegmentdError, match="has 2 of 5 images") as caught:
        open_image(pool, path)
    assert caught.value.reason is Reason.IMAGE_INCOMPLETE


def test_other_compound_files_are_no_images(pool: WorkerPool, shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "zeiss" / "generated" / "volume_f32_5x33x70.txm").read_bytes()
    path = tmp_path / "x.txm"
    path.write_bytes(data.replace("ImageInfo".encode("utf-16-le"), "ImageIdea".encode("utf-16-le")))
    with pytest.raises(SegmentdError, match="not a TXM, TXRM or XRM image") as caught:
        open_image(pool, path)
    assert caught.value.reason is Reason.IMAGE_UNSUPPORTED
