"""Training through the daemon: strokes of real images to a model, step by step, and on another machine."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from segmentctl import Client, DaemonError
from segmentctl.cli import app
from segmentd.models import bundle
from segmentd.v1 import training_service_pb2 as pb

from ..unit.models import fake_cuml
from .conftest import link_images
from .daemon import DaemonProcess, run_here, wait_until
from .images import SHAPE, draw, write_blobs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with an empty models folder and no watch."""
    folder = tmp_path_factory.mktemp("training")
    with DaemonProcess(folder, folder / "models", watches=[]) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """Another one, elsewhere; callers may name files in `in` only."""
    folder = tmp_path_factory.mktemp("away")
    roots = {"roots": [str(folder / "in")]}
    with DaemonProcess(folder, folder / "models", watches=[], server=roots) as daemon:
        yield daemon


def label(client: Client, training: str, seed: int, name: str = "") -> pb.TrainingImage:
    """Add an image of discs with strokes on about a tenth of its pixels."""
    pixels, inside = draw(seed)
    drawn = np.random.default_rng(seed).random(SHAPE) < 0.1
    image = client.add_training_image(training, pixels.astype(np.uint16), name=name)
    return client.set_training_labels(image.name, np.where(drawn, inside + 1, 0).astype(np.uint8))


def accuracy(client: Client, image: pb.TrainingImage, seed: int) -> float:
    """Share of pixels that the model in work gets right."""
    seen = client.segment_training_image(image)
    return float(np.mean(seen.labels == draw(seed)[1] + 1))


@pytest.mark.slow
def test_from_strokes_to_a_model_that_another_machine_goes_on_with(
    home: DaemonProcess, away: DaemonProcess, shared_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    link_images(shared_data / "nuclei_bbbc039", "train", data)
    images = sorted((data / "images").iterdir())
    with home.client() as client:
        client.create_training("Nuclei", ["background", ("nucleus", "#00ff00")], description="Hoechst")
        added = []
        for path in images[:2]:
            added.append(client.add_training_image("nuclei", path))
            client.set_training_labels(added[-1].name, data / "labels" / path.name)
        steps: list[tuple[str, int, int]] = []
        trained = client.run_training("nuclei", lambda *step: steps.append(step))
        assert trained.state == pb.Training.STATE_TRAINED
        assert {images[0].name, images[1].name, "training"} <= {step[0] for step in steps}
        assert trained.scores.accuracy > 0.9
        assert len(trained.scores.confusion) == 2
        assert sum(row.counts[0] + row.counts[1] for row in trained.scores.confusion) > 0
        assert sum(entry.share for entry in trained.scores.features) == pytest.approx(1, abs=1e-3)

        # The same model as `segmentd train` makes of the same files.
        for path in (*(data / "images").iterdir(), *(data / "labels").iterdir()):
            if path.name not in (images[0].name, images[1].name):
                path.unlink()
        (data / "classes.toml").write_text(
            '[[class]]\nvalue = 1\nname = "background"\n'
            '[[class]]\nvalue = 2\nname = "nucleus"\ncolor = "#00FF00"\n'
        )
        folders = ("--images", data / "images", "--labels", data / "labels")
        run_here("train", *folders, "--classes", data / "classes.toml", "--out", tmp_path / "same.segmodel")
        assert bundle.load(tmp_path / "same.segmodel").card.digest == trained.digest

        # What the model makes of it, where it is unsure, and more labels from what it is sure of.
        seen = client.segment_training_image(added[0])
        truth = tifffile.imread(shared_data / "nuclei_bbbc039" / "masks" / images[0].name)
        assert np.mean(seen.labels == truth) > 0.9
        regions = client.suggest_training_regions("nuclei", 3)
        assert [region.mean_confidence for region in regions] == sorted(r.mean_confidence for r in regions)
        assert regions[0].mean_confidence < seen.summary.mean_confidence
        before = client.training_labels(added[0])
        box = regions[0].region
        more = client.segmentation_to_labels(
            added[0].name, 2, min_confidence=95, region=(0, 0, 100, added[0].width)
        )
        after = client.training_labels(added[0])
        assert box.height > 0
        assert more.label_pixel_counts[1] > np.count_nonzero(before == 2)
        assert np.array_equal(after[before > 0], before[before > 0])
        assert set(np.unique(after[(before == 0) & (after > 0)])) == {2}
        assert client.training("nuclei").state == pb.Training.STATE_OUTDATED

        model = client.save_training_model("nuclei")
        assert (model.name, model.version, model.training) == ("models/nuclei", 1, "trainings/nuclei")
        refined = client.run_training("nuclei")
        assert refined.digest != trained.digest
        again = client.save_training_model("nuclei")
        assert (again.version, again.digest) == (2, refined.digest)
        assert [version.digest for version in client.model_versions("nuclei")] == [
            refined.digest,
            trained.digest,
        ]

        clone = client.clone_model("nuclei", "Nuclei two")
        assert (clone.name, clone.training) == ("models/nuclei-two", "trainings/nuclei-two")
        path = client.export_model("nuclei-two", tmp_path, with_images=True)
        bare = client.export_model("nuclei-two", tmp_path / "bare.segmodel")
        assert bare.stat().st_size < path.stat().st_size

    with away.client() as client:
        came = client.import_model(path)
        assert (came.digest, came.training) == (refined.digest, "trainings/nuclei-two")
        training = client.training("nuclei-two")
        assert [image.display_name for image in training.images] == [images[0].name, images[1].name]
        assert np.array_equal(client.training_labels(training.images[0]), after)
        # The same inputs, seed and versions make the same model, here as there.
        assert client.run_training("nuclei-two").digest == refined.digest
        third = client.add_training_image(
            "nuclei-two", shared_data / "nuclei_bbbc039/images" / images[2].name
        )
        client.set_training_labels(third.name, shared_data / "nuclei_bbbc039/scribbles" / images[2].name)
        on = client.run_training("nuclei-two")
        assert client.save_training_model("nuclei-two").version == 2
        assert client.model("nuclei-two").digest == on.digest != refined.digest


@pytest.mark.slow
def test_classes_and_labels_move_together_and_outlive_a_restart(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, tmp_path / "models", watches=[])
    with daemon, daemon.client() as client:
        client.create_training("T", ["a", "b"])
        image = label(client, "t", 1, "one")
        mask = np.zeros(SHAPE, bool)
        mask[:10, :20] = True
        client.add_training_class("t", "c", "#123456")
        client.set_training_mask(image.name, 3, mask)
        marked = client.training_labels(image)
        assert np.array_equal(marked == 3, mask)
        assert client.set_training_mask(image.name, 3, mask, pixel_count=50).label_pixel_counts[2] == 50
        client.set_training_mask(image.name, 3, mask)
        client.update_training_class("t", 3, name="corner")
        changed = client.delete_training_class("t", 1)
        assert [(entry.value, entry.display_name) for entry in changed.classes] == [(1, "b"), (2, "corner")]
        assert changed.classes[1].color == "#123456"
        moved = client.training_labels(image)
        assert np.array_equal(moved == 2, mask)
        assert np.array_equal(moved == 1, marked == 2)
        for refused in (
            lambda: client.add_training_class("t", "Root"),
            lambda: client.add_training_class("t", "b"),
            lambda: client.update_training_class("t", 1, color="red"),
            lambda: client.delete_training_class("t", 1),
            lambda: client.delete_training_class("t", 7),
        ):
            with pytest.raises(DaemonError) as error:
                refused()
            assert error.value.reason == "BAD_FIELD"
        client.run_training("t")
        daemon.kill()
        daemon.start()
        kept = client.training("t")
        assert [entry.display_name for entry in kept.classes] == ["b", "corner"]
        assert list(kept.images[0].label_pixel_counts) == [np.count_nonzero(moved == n) for n in (1, 2)]
        assert np.array_equal(client.training_labels(kept.images[0]), moved)
        assert client.training("t").state == pb.Training.STATE_TRAINED
        assert client.save_training_model("t").display_name == "T"


def test_what_does_not_fit_is_refused_and_changes_nothing(away: DaemonProcess, tmp_path: Path) -> None:
    inside = write_blobs(away.folder / "in" / "a.tif", 1)
    outside = write_blobs(tmp_path / "out" / "a.tif", 1)
    (away.folder / "in" / "link.tif").symlink_to(outside)
    with away.client() as client:
        client.create_training("T")
        image = client.add_training_image("t", PurePosixPath(inside))
        assert (image.display_name, image.height, image.width) == ("a.tif", *SHAPE)
        attempts = {
            "FOLDER_OUTSIDE_ROOTS": lambda: client.add_training_image("t", PurePosixPath(outside)),
            "IMAGE_VANISHED": lambda: client.add_training_image(
                "t", PurePosixPath(inside.parent / "none.tif")
            ),
            "TRAINING_NOT_FOUND": lambda: client.run_training("none"),
            "NOT_TRAINED": lambda: client.segment_training_image(image),
            "TRAINING_EXISTS": lambda: client.create_training("T"),
        }
        for reason, attempt in attempts.items():
            with pytest.raises(DaemonError) as error:
                attempt()
            assert error.value.reason == reason
        with pytest.raises(DaemonError) as error:
            client.add_training_image("t", PurePosixPath(away.folder / "in" / "link.tif"))
        assert error.value.reason == "FOLDER_OUTSIDE_ROOTS"
        other_type = np.zeros(SHAPE, np.uint8)
        too_small = np.ones((5, 5), np.uint8)
        unknown_class = np.full(SHAPE, 3, np.uint8)
        for attempt in (
            lambda: client.add_training_image("t", other_type),
            lambda: client.set_training_labels(image.name, too_small),
            lambda: client.set_training_labels(image.name, unknown_class),
            lambda: client.run_training("t"),
        ):
            with pytest.raises(DaemonError) as error:
                attempt()
            assert error.value.reason == "BAD_TRAINING_DATA"
        broken = tmp_path / "broken.tif"
        broken.write_bytes(inside.read_bytes()[:300])
        with pytest.raises(DaemonError) as error:
            client.add_training_image("t", broken)
        assert error.value.reason.startswith("IMAGE_")
        assert "broken.tif" in error.value.message
        assert len(client.training("t").images) == 1
        assert sum(client.training("t").images[0].label_pixel_counts) == 0
        left = [path for path in (away.folder / "training").iterdir() if path.name.startswith(".")]
        assert left == []


@pytest.mark.slow
def test_a_training_that_is_cancelled_leaves_the_model_before(home: DaemonProcess) -> None:
    with home.client() as client, home.client() as other:
        client.create_training("Long", feature_set="basic33")
        image = label(client, "long", 1, "one")
        first = client.run_training("long")
        label(client, "long", 2, "two")
        # More labelled pixels than a moment's work.
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 4000, (900, 900)).astype(np.uint16)
        noise = client.add_training_image("long", pixels)
        client.set_training_labels(noise.name, rng.integers(1, 3, pixels.shape).astype(np.uint8))
        failed: list[DaemonError] = []

        def train() -> None:
            try:
                client.run_training("long")
            except DaemonError as error:
                failed.append(error)

        thread = threading.Thread(target=train)
        thread.start()
        wait_until(lambda: other.training("long").state == pb.Training.STATE_RUNNING, "it runs")
        with pytest.raises(DaemonError) as error:
            other.delete_training_image(noise.name)
        assert error.value.reason == "TRAINING_RUNNING"
        other.cancel_training("long")
        thread.join(30)
        assert [error.reason for error in failed] == ["TRAINING_CANCELLED"]
        kept = client.training("long")
        assert (kept.state, kept.digest) == (pb.Training.STATE_OUTDATED, first.digest)

        class StopError(Exception):
            """Raised by a caller that has had enough."""

        def stop(what: str, done: int, total: int) -> None:
            raise StopError

        with pytest.raises(StopError):
            client.run_training("long", stop)
        wait_until(
            lambda: client.training("long").state != pb.Training.STATE_RUNNING, "the daemon ends it too"
        )
        client.delete_training_image(noise.name)
        assert client.run_training("long").digest != first.digest
        assert accuracy(client, image, 1) > 0.85


@pytest.mark.slow
def test_a_card_trains_and_the_cpu_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for cuML, whose process then aborts."""
    fake_cuml.install(tmp_path / "fake", monkeypatch)
    daemon = DaemonProcess(tmp_path, tmp_path / "models", watches=[])
    daemon.training["device"] = "cuda"
    paths = [str(tmp_path / "fake"), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    daemon.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with daemon, daemon.client() as client:
        client.create_training("T")
        image = label(client, "t", 1)
        by_card = client.run_training("t")
        assert (by_card.device, by_card.device_reason) == ("cuda:0", "")
        assert accuracy(client, image, 1) > 0.85
        by_cpu = client.run_training("t", device="cpu")
        assert (by_cpu.device, by_cpu.device_reason) == ("cpu", "")
        assert by_cpu.digest != by_card.digest  # the version of cuML is in it
        with pytest.raises(DaemonError) as refused:
            client.run_training("t", device="tpu")
        assert refused.value.reason == "BAD_FIELD"
        daemon.stop()
        daemon.environment[fake_cuml.VARIABLE] = "abort"
        daemon.start()
        kept = client.training("t")
        assert (kept.device, kept.digest) == ("cpu", by_cpu.digest)
        failed = client.run_training("t")
        assert (failed.state, failed.device, failed.digest) == (kept.state, "cpu", by_cpu.digest)
        assert "crashed (signal SIGABRT)" in failed.device_reason
        shown = CliRunner().invoke(app, ["--address", daemon.address, "train", "show", "t"]).output
        assert "trained on" in shown and "trained by scikit-learn on the CPU" in " ".join(shown.split())


@pytest.mark.slow
def test_a_model_takes_its_images_along(home: DaemonProcess, away: DaemonProcess, tmp_path: Path) -> None:
    with home.client() as client:
        client.create_training("Whole")
        image = label(client, "whole", 1)
        assert client.run_training("whole").scores.accuracy > 0.8
        assert accuracy(client, image, 1) > 0.85
        drawn = client.training_labels(image)
        model = client.save_training_model("whole")
        path = client.export_model("whole", tmp_path)
        assert path.name == "whole.segmodel"
        assert path.read_bytes() == (home.folder / "models" / "whole.segmodel").read_bytes()
        full = client.export_model("whole", tmp_path / "full.segmodel", with_images=True)
        # A file with images is a model like any other.
        assert bundle.load(full).card.digest == bundle.load(path).card.digest == model.digest
    with away.client() as client:
        came = client.import_model(full)
        assert (came.digest, came.training) == (model.digest, "trainings/whole")
        assert (away.folder / "models" / "whole.segmodel").stat().st_size < full.stat().st_size
        training = client.training("whole")
        assert training.state == pb.Training.STATE_UNTRAINED
        assert np.array_equal(client.training_labels(training.images[0]), drawn)
        again = client.create_training("Copy", source="models/whole")
        assert np.array_equal(client.training_labels(again.images[0]), drawn)
        client.delete_training("whole")
        assert client.model("whole").training == ""


def test_the_command_line_trains(home: DaemonProcess, tmp_path: Path) -> None:
    pixels, inside = draw(4)
    drawn = np.random.default_rng(4).random(SHAPE) < 0.1
    tifffile.imwrite(tmp_path / "image.tif", pixels.astype(np.uint16))
    tifffile.imwrite(tmp_path / "labels.tif", np.where(drawn, inside + 1, 0).astype(np.uint8))
    tifffile.imwrite(tmp_path / "mask.tif", inside.astype(np.uint8) * 255)

    def train(*arguments: str | Path) -> str:
        words = ["--address", home.address, "train", *map(str, arguments)]
        done = CliRunner(env={"COLUMNS": "200"}).invoke(app, words)
        assert done.exit_code == 0, done.output
        return done.stdout

    train("create", "Discs", "--class", "ground", "--class", "disc=#112233")
    assert "i1: image.tif" in train(
        "add", "discs", tmp_path / "image.tif", "--labels", tmp_path / "labels.tif"
    )
    assert "2: 40" in train("mask", "discs", "i1", "2", tmp_path / "mask.tif", "--pixels", "40")
    train("labels", "discs", "i1", tmp_path / "labels.tif", "--merge")
    assert "out-of-bag accuracy" in train("run", "discs")
    assert "mean confidence" in train("segment", "discs", "i1", "--out", tmp_path / "seen")
    assert (tmp_path / "seen" / "image.tif.labels.ome.tif").exists()
    assert len(json.loads(train("suggest", "discs", "--count", "2", "--size", "16", "--json"))) == 2
    train("to-labels", "discs", "i1", "--class", "2", "--min-confidence", "99")
    train("export-labels", "discs", "i1", tmp_path / "out.tif")
    assert set(np.unique(tifffile.imread(tmp_path / "out.tif"))) == {0, 1, 2}
    assert "outdated" in train("list")
    assert "is saved as version 1" in train("save", "discs")
    assert "basic33" in train("features")
    train("set", "discs", "--seed", "3")
    train("change-class", "discs", "1", "--name", "floor")
    assert "floor" in train("show", "discs")
    train("delete", "discs")
