"""Scripts with the original's names against a real daemon: the example, stacks, copies, what goes wrong."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from segmentctl import oad
from segmentctl.cli import app
from segmentctl.oad import ApplicationException, Zen, ZenImage, ZenIntellesis, ZenSegmentationFormat

from .daemon import DaemonProcess, environment
from .images import SHAPE, blobs, draw, write_blobs

pytestmark = pytest.mark.e2e

LABELS = ZenSegmentationFormat.Labels


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the model `Blobs`, trained from an image that it keeps."""
    folder = tmp_path_factory.mktemp("oad")
    with DaemonProcess(folder, folder / "models", watches=[]) as daemon:
        with daemon.client() as client:
            client.create_training("Blobs", ["background", ("blob", "#00FF00")], description="of discs")
            image = client.add_training_image("blobs", blobs(1), name="first")
            drawn = np.random.default_rng(1).random(SHAPE) < 0.1
            client.set_training_labels(image.name, np.where(drawn, draw(1)[1] + 1, 0).astype(np.uint8))
            client.run_training("blobs")
            client.save_training_model("blobs")
        oad.connect(daemon.address)
        yield daemon


def find(name: str) -> Any:
    models = ZenIntellesis.ListAvailableSegmentationModels()
    return next((model for model in models if model.Name == name), None)


@pytest.mark.slow
def test_the_example_script_on_a_real_image(
    home: DaemonProcess, repository: Path, shared_data: Path, tmp_path: Path
) -> None:
    data, name = shared_data / "nuclei_bbbc039", "IXMtest_G08_s6.tif"
    with home.client() as client:
        client.create_training("Nuclei", ["background", "nucleus"])
        image = client.add_training_image("nuclei", data / "images" / name)
        client.set_training_labels(image.name, data / "scribbles" / name)
        client.run_training("nuclei")
        client.save_training_model("nuclei")
        model = client.export_model("nuclei", tmp_path, with_images=True)
        client.delete_model("nuclei", purge=True)
        client.delete_training("nuclei")

        seen = data / "images" / "IXMtest_F03_s5.tif"
        done = subprocess.run(
            [sys.executable, repository / "clients/examples/zen_script.py", model, "Nuclei", seen, tmp_path],
            env=environment(tmp_path) | {"SEGMENTD_ADDRESS": home.address},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[:2] == ["Model      : Nuclei - Trained", f"Trained on : {name}"]
        for line in (
            "Basic Features 25",
            "Basic Features 33",
            "No Postprocessing",
            "Conditional Random Field",
        ):
            assert f": {line}\n" in done.stdout
        assert "696 x 520 Gray16" in done.stdout

        pixels = tifffile.imread(seen)
        labels, confidence = client.segment(pixels, "nuclei")
        assert np.array_equal(tifffile.imread(tmp_path / "labels.ome.tif"), labels)
        assert np.mean(labels == tifffile.imread(data / "masks" / seen.name)) > 0.95
        sure = tifffile.imread(tmp_path / "sure.ome.tif")
        expected = [np.where((labels == value) & (confidence >= 80), 255, 0) for value in (1, 2)]
        assert np.array_equal(sure, expected)
        assert np.array_equal(tifffile.imread(tmp_path / "both.ome.tif"), [pixels, expected[1]])
        copied = tifffile.imread(tmp_path / "copy.ome.tif")
        assert 0.97 < np.mean(copied == labels) < 1  # other features, the same strokes
        assert {entry.display_name for entry in client.models()} == {"Blobs", "Nuclei"}
        assert {entry.display_name for entry in client.trainings()} == {"Blobs", "Nuclei"}


def test_what_a_model_says(home: DaemonProcess) -> None:
    model = find("Blobs")
    assert (model.Id, model.Status, model.Description) == ("blobs", "Trained", "of discs")
    assert (model.FeatureSet, model.PostProcessing) == ("Basic Features 25", "No Postprocessing")
    assert model.ClassNames == ["background", "blob"]
    assert [Path(name).stem for name in model.TrainingImages] == ["first"]


@pytest.mark.parametrize("kind", ["array", "path", "image"])
def test_images_may_be_arrays_files_and_zen_images(home: DaemonProcess, kind: str, tmp_path: Path) -> None:
    pixels = blobs(5)
    path = write_blobs(tmp_path / "a.tif", 5)
    given = {"array": pixels, "path": path, "image": ZenImage(pixels)}[kind]
    with home.client() as client:
        labels, confidence = client.segment(pixels, "blobs")
    found, sureness = Zen.Processing.Segmentation.TrainableSegmentationWithConfidenceMap(
        given, "Blobs", LABELS
    )
    assert np.array_equal(found, labels)
    assert np.array_equal(sureness, confidence)
    channels = Zen.Processing.Segmentation.TrainableSegmentation(given, "Blobs")
    assert channels.Metadata.ChannelNames == ("background", "blob")
    assert np.array_equal(channels, [np.where(labels == value, 255, 0) for value in (1, 2)])


def test_every_plane_of_a_stack_and_what_is_saved_of_it(home: DaemonProcess, tmp_path: Path) -> None:
    stack = np.stack([blobs(seed) for seed in range(6)]).reshape(3, 2, 1, *SHAPE)
    size = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, ome=True, metadata={"axes": "TZCYX", **size})
    image = Zen.Application.LoadImage(tmp_path / "s.ome.tif", True)
    bounds = image.Bounds
    assert (bounds.SizeT, bounds.SizeZ, bounds.SizeC, bounds.SizeY, bounds.SizeX) == stack.shape
    found = Zen.Processing.Segmentation.TrainableSegmentation(image, "Blobs", LABELS)
    with home.client() as client:
        for plane, labels in zip(stack.reshape(6, *SHAPE), found.pixels.reshape(6, *SHAPE), strict=True):
            assert np.array_equal(labels, client.segment(plane, "blobs")[0])
    found.Save(tmp_path / "labels.ome.tif")
    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as written:
        assert written.series[0].axes == "TZYX"
        assert np.array_equal(written.asarray(), found)
    again = Zen.Application.LoadImage(tmp_path / "labels.ome.tif")
    assert np.array_equal(again.pixels, found.pixels)
    assert (again.about.pixel_size.x_um, again.about.pixel_size.y_um) == (0.25, 0.5)
    assert Zen.Application.Documents.GetByName("s.ome.tif") is image
    Zen.Application.Documents.RemoveAll()
    assert len(Zen.Application.Documents) == 0


def test_copies_that_cannot_be_made_leave_nothing_behind(home: DaemonProcess) -> None:
    model = find("Blobs")
    with pytest.raises(ApplicationException, match="already"):
        model.TrainCopy("Blobs")
    with pytest.raises(ApplicationException, match="postprocessing"):
        model.TrainCopy("Other", postProcessing="Blur")
    with pytest.raises(ApplicationException):
        model.TrainCopy("Other", featureSet="Basic Features 7")
    assert find("Other") is None
    with home.client() as client:
        assert not [training.name for training in client.trainings() if "copy" in training.name]


@pytest.mark.slow
def test_a_copy_is_trained_anew_with_the_field_and_goes_for_good(home: DaemonProcess) -> None:
    model = find("Blobs")
    copy = model.TrainCopy("Copy", "Basic Features 25", "Conditional Random Field")
    assert (copy.Name, copy.PostProcessing) == ("Copy", "Conditional Random Field")
    with home.client() as client:
        assert client.model("copy").postprocessing == "crf"
        labels, _ = client.segment(blobs(7), "blobs", postprocessing="crf")
    found, sureness = copy.Segment(blobs(7), LABELS)
    assert np.array_equal(found, labels)
    assert np.asarray(sureness).min() == 100
    copy.Delete()
    with home.client() as client:
        assert "copy" not in {model.name.removeprefix("models/") for model in client.models()}
        assert not [training.name for training in client.trainings() if "copy" in training.name]


def test_import_and_delete_can_be_undone(home: DaemonProcess, tmp_path: Path) -> None:
    with home.client() as client:
        path = client.export_model("blobs", tmp_path / "other.segmodel")
        client.import_model(path, model_id="other", display_name="Other")
        path = client.export_model("other", path)
        ours = next(each for each in ZenIntellesis.ListAvailableSegmentationModels() if each.Id == "other")
        ours.Delete()
        assert ZenIntellesis.ImportModel(path).Name == "Other"
        with pytest.raises(ApplicationException) as error:
            ZenIntellesis.ImportModel(path, False)
        assert error.value.Reason == "MODEL_EXISTS"
        assert ZenIntellesis.ImportModel(path, allowOverwrite=True).Id == "other"
        ours.Delete()
        assert client.rollback_model("other").display_name == "Other"
        client.delete_model("other", purge=True)


def test_a_model_from_the_network_comes_only_with_its_checksum(home: DaemonProcess, tmp_path: Path) -> None:
    with home.client() as client:
        path = client.export_model("blobs", tmp_path)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/{path.name}"
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            runs = {
                (url,): (2, "--sha256"),
                (url, "--sha256", digest): (1, "only https"),
                (url, "--sha256", "0" * 64, "--allow-http"): (1, "not the one"),
                (url, "--sha256", digest, "--allow-http", "--id", "fetched"): (0, "imported"),
            }
            for arguments, (code, said) in runs.items():
                command = ["--address", home.address, "models", "import", *arguments]
                done = CliRunner(env={"COLUMNS": "200", "no_proxy": "127.0.0.1"}).invoke(app, command)
                assert (done.exit_code, said in done.output) == (code, True), done.output
        finally:
            server.shutdown()
            thread.join()
    with home.client() as client:
        assert client.model("fetched").digest == client.model("blobs").digest
        client.delete_model("fetched", purge=True)


def test_what_goes_wrong_is_one_kind_of_exception(home: DaemonProcess, tmp_path: Path) -> None:
    segment = Zen.Processing.Segmentation.TrainableSegmentation
    (tmp_path / "bad.tif").write_bytes(b"II*\0nothing")
    attempts = {
        "MODEL_NOT_FOUND": lambda: segment(blobs(1), "None"),
        "IMAGE_UNREADABLE": lambda: Zen.Application.LoadImage(tmp_path / "none.png"),
        "BAD_FIELD": lambda: segment(blobs(1).astype(np.float64), "Blobs"),
        "PIXEL_TYPE_MISMATCH": lambda: segment(blobs(1).astype(np.uint8), "Blobs"),
        "IMAGE_CORRUPT": lambda: Zen.Application.LoadImage(tmp_path / "bad.tif"),
    }
    for reason, attempt in attempts.items():
        with pytest.raises(ApplicationException) as error:
            attempt()
        assert error.value.Reason == reason, error.value.Message
        assert error.value.Message == str(error.value) != ""
    with pytest.raises(ApplicationException, match="closed"):
        closed = ZenImage(blobs(1))
        closed.Close()
        segment(closed, "Blobs")
