"""Scenes, times, Z and channels: every plane is segmented, whatever the format that holds them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pylibCZIrw import czi

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
    assert from_czi.shape == (2, 3, 61, 83)
    assert set(np.unique(from_czi)) == set(range(1, len(CLASSES) + 1))
    np.testing.assert_array_equal(from_czi, from_tiff)


def test_two_scenes_of_a_mosaic_are_two_scenes(
    blobs_model: Path, place: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    scenes = [blobs(seed, (110, 130)) for seed in (5, 6)]
    path = write_scenes(tmp_path / "mosaic.czi", scenes)
    found = labels_of(path, tmp_path / "out", blobs_model)
    assert len(found) == 2
    for number, pixels in enumerate(scenes):
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels)
        [alone] = labels_of(tmp_path / f"{number}.tif", tmp_path / "out", blobs_model)
        np.testing.assert_array_equal(found[number], alone)
    with place().start() as daemon, daemon.client() as client:
        shutil.copyfile(path, daemon.hot / "mosaic.czi")
        results = [result for _, result in zip(range(2), client.subscribe(), strict=False)]
    assert [result.segmentation.plane.scene for result in results] == [0, 1]
    for labels, result in zip(found, results, strict=True):
        np.testing.assert_array_equal(result.labels, labels)
