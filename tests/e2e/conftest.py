"""Models that are trained once through the command line, and folders that they lie in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segmentd.models import bundle

from .daemon import DaemonProcess, run
from .images import CLASSES, write_training_set
from .scene import Scene, played


@pytest.fixture(scope="session")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images`, `labels` and `classes.toml` for the model `blobs`."""
    folder = tmp_path_factory.mktemp("training")
    write_training_set(folder)
    lines = [f'[[class]]\nvalue = {i}\nname = "{name}"' for i, name in enumerate(CLASSES, 1)]
    (folder / "classes.toml").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def blobs_model(training_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two classes for synthetic images: uint16, one channel."""
    path = tmp_path_factory.mktemp("models") / "blobs.segmodel"
    folders = ("--images", training_set / "images", "--labels", training_set / "labels")
    run("train", *folders, "--classes", training_set / "classes.toml", "--out", path)
    return path


@pytest.fixture(scope="session")
def renamed(blobs_model: Path) -> Callable[[Path, str, str], Path]:
    """Write the model `blobs` under another id and display name."""

    def write(folder: Path, identity: str, display_name: str) -> Path:
        model = bundle.load(blobs_model)
        path = folder / f"{identity}.segmodel"
        bundle.save(replace(model, card=replace(model.card, id=identity, display_name=display_name)), path)
        return path

    return write


@pytest.fixture(scope="session")
def scene(
    renamed: Callable[[Path, str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """A daemon that has done five images; tests leave it as it is."""
    with played(tmp_path_factory.mktemp("scene"), renamed) as made:
        yield made


@pytest.fixture(scope="session")
def trained(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train on the strokes of a set's `train` images, once: `trained(set, normalization, features)`."""
    done: dict[tuple[str, str, str], Path] = {}

    def train(name: str, normalization: str = "none", features: str = "basic25") -> Path:
        if (name, normalization, features) not in done:
            folder = tmp_path_factory.mktemp(name)
            link_images(shared_data / name, "train", folder)
            path = folder / f"{name.replace('_', '-')}.segmodel"
            folders = ("--images", folder / "images", "--labels", folder / "labels")
            how = ("--normalization", normalization, "--features", features, "--seed", "0")
            run("train", *folders, *how, "--out", path)
            done[name, normalization, features] = path
        return done[name, normalization, features]

    return train


def link_images(data: Path, split: str, folder: Path) -> list[dict[str, Any]]:
    """Lay out the images and strokes of a split as `segmentd train` wants them; return their entries."""
    entries = [
        entry
        for entry in json.loads((data / "dataset.json").read_text())["images"]
        if entry["split"] == split
    ]
    for kind, key in (("images", "image"), ("labels", "scribble")):
        (folder / kind).mkdir(parents=True)
        for entry in entries:
            shutil.copy(data / entry[key], folder / kind)
    return entries


@pytest.fixture
def place(tmp_path: Path, blobs_model: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Make a place for a daemon with the model `blobs`; whatever runs at the end of the test is ended."""
    made: list[DaemonProcess] = []

    def make(name: str = "place", **watch: Any) -> DaemonProcess:
        options = {"model": "blobs", "settle_seconds": 0.3, **watch}
        made.append(DaemonProcess(tmp_path / name, blobs_model.parent, **options))
        return made[-1]

    yield make
    for daemon in made:
        daemon.clean_up()
        print(f"--- the end of {daemon.log_path}\n{daemon.log_end()}")  # pytest shows it when the test failed
