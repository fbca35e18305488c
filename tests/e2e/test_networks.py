"""Imported networks in a real daemon: a package in the model folder is a model like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentctl import DaemonError
from segmentd.v1 import model_service_pb2

from ..unit import tiny_networks as tiny
from .daemon import DaemonProcess, run_here
from .wire import connected

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    (folder / "levels.czann").write_bytes(tiny.czann())
    changes = {"InputShape": [32, 32, 1], "OutputShape": [32, 32, 1], "Classes": None, "ModelName": "Half"}
    (folder / "half.czann").write_bytes(tiny.czann(tiny.half(), Type="Regression", **changes))
    (folder / "bad.czann").write_bytes(tiny.czann(Type="ObjectDetection"))
    return folder


def image(seed: int, shape: tuple[int, int] = (300, 210)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_watches_and_callers_use_networks(models: Path, tmp_path: Path) -> None:
    watches = [
        {"id": "labels", "folder": "labels", "model": "levels", "settle_seconds": 0.2, "tile": 64},
        {"id": "images", "folder": "images", "model": "Half", "settle_seconds": 0.2},
    ]
    for name in ("labels", "images"):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", image(1))
    with DaemonProcess(tmp_path, models, watches) as daemon, daemon.client() as client:
        with connected(daemon.address) as wire:
            answer = wire.models.ListModels(model_service_pb2.ListModelsRequest(), timeout=30)
        listed = {model.name: model for model in answer.models}
        assert [entry.display_name for entry in listed["models/levels"].classes] == ["low", "middle", "high"]
        assert listed["models/bad"].state == listed["models/bad"].STATE_FAILED
        assert "boxes" in listed["models/bad"].state_reason
        with client.subscribe("labels", start="oldest", timeout=60) as stream:
            result = next(stream)
        np.testing.assert_array_equal(result.labels, tiny.expected(image(1), 255))
        with client.subscribe("images", start="oldest", metadata_only=True, timeout=60) as stream:
            made = next(stream).segmentation
        assert list(made.files) == ["image"]
        pixels = tifffile.imread(made.files["image"].local_path)
        np.testing.assert_allclose(pixels, 0.5 * image(1) + 25.5, atol=0.51)
        labels, _ = client.segment(image(2), "levels")
        np.testing.assert_array_equal(labels, tiny.expected(image(2), 255))
        with pytest.raises(DaemonError, match="makes images"):
            client.segment(image(2), "Half")
        daemon.stop()
    assert "the tile size is ignored" in daemon.log_end()


def test_segment_takes_packages(models: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image(3))
    plain = ("segment", tmp_path / "a.tif", "--out")
    run_here(*plain, tmp_path / "labels", "--model", models / "levels.czann", "--overlay")
    run_here(*plain, tmp_path / "image", "--model", "Half", "--models", models)
    labels = tifffile.imread(tmp_path / "labels" / "a.tif.labels.ome.tif")
    np.testing.assert_array_equal(labels, tiny.expected(image(3), 255))
    assert [path.name for path in (tmp_path / "image").iterdir()] == ["a.tif.network.ome.tif"]
    shutil.copy(models / "bad.czann", tmp_path)
    done = run_here(*plain, tmp_path / "no", "--model", tmp_path / "bad.czann", code=1)
    assert "boxes around objects" in done.stderr
