"""Scenes, times, Z and channels: every plane is segmented, whatever the format that holds them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pylibCZIrw import czi

from ..unit.ingest.ome_zarr_files import write_ome_zarr
from .daemon import DaemonProcess, run_here
from .images import CLASSES, Pixels, blobs, write_training_set

pytestmark = pytest.mark.e2e


def write_scenes(path: Path, scenes: list[Pixels], edge: int = 64) -> Path:
    """Write a mosaic: each scene in tiles, at a place of its own."""
    with czi.create_czi(str(path)) as writer:
        for number, pixels in enumerate(scenes):
            for top in range(0, pixels.shape[0], edge):
                for left in range(0, pixels.shape[1], edge):
                    tile = np.ascontiguousarray(pixels[top : top + edge, left : left + edge, None])
                    place = (1000 * number - 500 + left, 300 - 2000 * number + top)
                    writer.write(tile, location=place, plane={"C": 0, "T": 0, "Z": 0}, scene=number)
        writer.write_metadata("mosaic", channel_names={0: "DAPI"}, scale_x=2.5e-7, scale_y=2.5e-7)
    return path


def labels_of(path: Path, out: Path, model: Path) -> list[Pixels]:
    """Segment an image; return the labels of each scene."""
    run_here("segment", path, "--model", model, "--out", out)
    with tifffile.TiffFile(out / f"{path.name}.labels.ome.tif") as tiff:
        return [series.asarray() for series in tiff.series]


def test_five_dimensions_give_the_same_labels_in_every_format(training_set: Path, tmp_path: Path) -> None:
    images, labels = write_training_set(tmp_path / "training")
    for path in images.iterdir():
        first = tifffile.imread(path)
        tifffile.imwrite(path, np.stack([first, first[::-1]]), ome=True, metadata={"axes": "CYX"})
    model = tmp_path / "two.segmodel"
    folders = ("--images", images, "--labels", labels)
    run_here("train", *folders, "--classes", training_set / "classes.toml", "--out", model)
    planes = [blobs(seed, (61, 83)) for seed in range(12)]
    pixels = np.stack(planes).reshape(2, 3, 2, 61, 83)
    tifffile.imwrite(tmp_path / "x.ome.tif", pixels, metadata={"axes": "TZCYX"}, photometric="minisblack")
    with czi.create_czi(str(tmp_path / "x.czi")) as writer:
        for t, z, c in np.ndindex(2, 3, 2):
            writer.write(pixels[t, z, c][..., None], plane={"T": t, "Z": z, "C": c}, scene=0)
    [from_czi] = labels_of(tmp_path / "x.czi", tmp_path / "out", model)
    [from_tiff] = labels_of(tmp_path / "x.ome.tif", tmp_path / "out", model)
    write_ome_zarr(tmp_path / "x.zarr", pixels, "tzcyx", chunk=32)
    [from_zarr] = labels_of(tmp_path / "x.zarr", tmp_path / "out", model)
    np.testing.assert_array_equal(from_zarr, from_tiff)
    assert from_czi.shape == (2, 3, 61, 83)
    assert set(np.unique(from_czi)) == set(range(1, len(CLASSES) + 1))
    np.testing.assert_array_equal(from_czi, from_tiff)


def test_two_scenes_of_a_mosaic_are_two_scenes(
    blobs_model: Path, place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    scenes = [blobs(5, (110, 130)), blobs(6, (300, 90))]
    path = write_scenes(tmp_path / "mosaic.czi", scenes)
    found = labels_of(path, tmp_path / "out", blobs_model)
    assert len(found) == 2
    for number, pixels in enumerate(scenes):
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels)
        [alone] = labels_of(tmp_path / f"{number}.tif", tmp_path / "out", blobs_model)
        # Each as if it were alone; beyond it there are no labels, and nothing is counted.
        height, width = pixels.shape
        np.testing.assert_array_equal(found[number][:height, :width], alone)
        assert found[number].shape == (300, 130)
        assert not found[number][height:].any()
        assert not found[number][:, width:].any()
    with place(results_format="czi").start() as daemon, daemon.client() as client:
        shutil.copyfile(path, daemon.hot / "mosaic.czi")
        subscription = client.subscribe()
        results = [next(subscription), next(subscription)]
        # An image that is a folder is found by its name, and nothing in it is an image of its own.
        write_ome_zarr(daemon.hot / "a.zarr", scenes[0], "yx", chunk=64)
        (daemon.hot / "a.zarr" / "thumbnail.tif").write_bytes(b"no image")
        last = next(subscription)
    assert [result.segmentation.plane.scene for result in results] == [0, 1]
    written = {result.segmentation.files["labels"].local_path for result in results}
    assert [Path(name).name for name in written] == ["mosaic.czi.labels.czi"]
    with czi.open_czi(written.pop()) as opened:
        for number, (labels, result) in enumerate(zip(found, results, strict=True)):
            np.testing.assert_array_equal(result.labels, labels)
            height, width = scenes[number].shape
            np.testing.assert_array_equal(opened.read(scene=number)[..., 0], labels[:height, :width])
    counts = [list(result.segmentation.label_pixel_counts) for result in results]
    assert [sum(of_scene) for of_scene in counts] == [110 * 130, 300 * 90]
    assert last.segmentation.source == b"a.zarr"
    np.testing.assert_array_equal(last.labels, found[0][:110, :130])
