"""Deep features from the command line and in a real daemon, on real micrographs, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentctl import Client
from segmentd.compute.deep_sets import deep_sets

from ..unit import vgg19_files
from .daemon import DaemonProcess, run_here

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]
CROP = (slice(100, 420), slice(0, 330))
NAMES = [entry.name for entry in deep_sets()]


@pytest.fixture(scope="module", autouse=True)
def tensorflow() -> None:
    pytest.importorskip("tensorflow", reason="needs the extra 'deep'")


def micrograph(shared_data: Path, folder: Path, data_set: str) -> Path:
    """A part of an image and strokes of all classes on it."""
    for strokes in sorted((shared_data / data_set / "scribbles").glob("*.tif")):
        whole = tifffile.imread(strokes)
        labels = whole[CROP]
        if set(np.unique(labels)) == set(np.unique(whole)):
            for kind, pixels in (
                ("images", tifffile.imread(shared_data / data_set / "images" / strokes.name)[CROP]),
                ("labels", labels),
            ):
                (folder / kind).mkdir(parents=True)
                tifffile.imwrite(folder / kind / "a.tif", np.ascontiguousarray(pixels))
            return folder
    raise AssertionError(f"no part of {data_set} has strokes of all classes")


def has_tensorflow(pid: int) -> bool:
    return "libtensorflow" in Path(f"/proc/{pid}/maps").read_text()


def test_every_set_trains_and_predicts_in_the_daemon(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = vgg19_files.write(tmp_path)["weights"]
    models = tmp_path / "models"
    images = {}
    for number, name in enumerate(NAMES):
        data_set = ("nuclei_bbbc039", "sandstone_xrm")[number % 2]
        folder = micrograph(shared_data, tmp_path / name, data_set)
        images[name] = tifffile.imread(folder / "images" / "a.tif")
        done = run_here(
            *("train", "--images", folder / "images", "--labels", folder / "labels", "--features", name),
            *("--normalization", "percentile", "--out", models / f"{name}.segmodel"),
            *("--vgg19-weights", weights),
        )
        assert "out-of-bag accuracy" in done.stdout
    folder = tmp_path / "deep128"
    command = ("segment", folder / "images", "--model", models / "deep128.segmodel", "--out", folder / "out")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert "--vgg19-weights" in run_here(*command, code=1).stderr
    run_here(*command, "--vgg19-weights", weights)
    expected = tifffile.imread(folder / "out" / "a.tif.labels.ome.tif")
    process = DaemonProcess(tmp_path / "d", models, watches=[])
    process.model_settings["vgg19_weights"] = str(weights)
    with process as daemon, daemon.client() as client:
        assert not has_tensorflow(daemon.pid)
        for name in NAMES:
            labels, confidence = client.segment(images[name], name)
            assert set(np.unique(labels)) >= {1, 2}, name
            assert confidence.mean() > 60, name
            if name == "deep128":
                assert np.mean(labels == expected) >= 0.999
        client.create_training("Trained here", feature_set="deep50", normalization="percentile")
        image = client.add_training_image("trained-here", tmp_path / "deep64" / "images" / "a.tif")
        client.set_training_labels(image.name, tmp_path / "deep64" / "labels" / "a.tif")
        trained = client.run_training("trained-here")
        assert trained.scores.accuracy > 0.8
        assert client.segment_training_image(image).labels.shape == images["deep64"].shape
        assert has_tensorflow(daemon.pid)
        daemon.stop()


def test_a_watch_uses_deep_features(shared_data: Path, tmp_path: Path) -> None:
    weights = vgg19_files.write(tmp_path)["model"]
    folder = micrograph(shared_data, tmp_path / "set", "nuclei_bbbc039")
    out = tmp_path / "models" / "cells.segmodel"
    train = ("train", "--images", folder / "images", "--labels", folder / "labels", "--features", "deep50")
    run_here(*train, "--out", out, "--vgg19-weights", weights)
    process = DaemonProcess(tmp_path / "d", tmp_path / "models", model="cells", settle_seconds=0.2)
    process.model_settings["vgg19_weights"] = str(weights)
    with process as daemon:
        pixels = tifffile.imread(folder / "images" / "a.tif")
        tifffile.imwrite(daemon.hot / "b.tif", pixels)
        with Client(daemon.address) as client, client.subscribe("hot", start="oldest", timeout=100) as stream:
            watched = next(stream)
        with daemon.client() as client:
            labels, _ = client.segment(pixels, "cells")
        assert np.array_equal(watched.labels, labels)
        daemon.stop()
