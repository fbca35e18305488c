"""One daemon for all bridges, with models that it was taught from real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segmentctl import Client
from segmentd.compute.features import FeatureSet, compute_features, feature_names, feature_sets
from segmentd.imagefile import default_color
from segmentd.models import bundle, training
from segmentd.records import ClassInfo, PixelType

from ...unit.tiny_model import CARD
from ..daemon import DaemonProcess

NUCLEI = "IXMtest_D04_s9.tif"


@pytest.fixture(scope="session")
def nuclei(shared_data: Path) -> npt.NDArray[np.uint16]:
    """A real image (520, 696) of nuclei."""
    image: npt.NDArray[np.uint16] = tifffile.imread(shared_data / "nuclei_bbbc039" / "images" / NUCLEI)
    return image


@pytest.fixture(scope="session")
def nuclei_truth(shared_data: Path) -> npt.NDArray[np.bool_]:
    """Where `nuclei` has nuclei, drawn by hand."""
    mask = tifffile.imread(shared_data / "nuclei_bbbc039" / "masks" / NUCLEI)
    return np.asarray(mask == 2)


@pytest.fixture(scope="session")
def cells(shared_data: Path) -> npt.NDArray[np.uint16]:
    """A real image (2, 214, 226) of nuclei and tubulin."""
    path = shared_data / "two_channel_cells" / "images" / "nuclei_tubulin.ome.tif"
    image: npt.NDArray[np.uint16] = tifffile.imread(path)
    return image


@pytest.fixture(scope="session")
def daemon(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with the models `nuclei` (one channel) and `cells` (two); it watches a folder as `hot`."""
    folder = tmp_path_factory.mktemp("bridges")
    models = folder / "models"
    teach(models, "nuclei", shared_data / "nuclei_bbbc039", ["background", "nucleus"], NUCLEI)
    classes = ["background", "cytoplasm", "nucleus"]
    teach(models, "cells", shared_data / "two_channel_cells", classes, "nuclei_tubulin.ome.tif")
    with DaemonProcess(folder, models, model="nuclei", settle_seconds=0.3) as home:
        yield home


def teach(models: Path, name: str, data: Path, classes: list[str], image: str) -> None:
    """Train on the strokes of one image, with the plain filters: quicker than starting the command."""
    pixels = tifffile.imread(data / "images" / image)
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    strokes = tifffile.imread(data / "scribbles" / image.replace(".ome", ""))
    feature_set = feature_sets()["basic25"]
    assert isinstance(feature_set, FeatureSet)
    reach = feature_set.reach_px
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    features = compute_features(padded.astype(np.float32), feature_set)
    samples = training.Samples(features[:, strokes > 0].T, strokes[strokes > 0])
    channels = tuple(f"channel {number}" for number in range(1, len(pixels) + 1))
    trained = training.train(samples, len(classes), feature_names(feature_set, channels))
    card = replace(
        CARD,
        id=name,
        display_name=name,
        classes=tuple(ClassInfo(value, text, default_color(value)) for value, text in enumerate(classes, 1)),
        channel_count=len(channels),
        channels=channels,
        pixel_type=PixelType.UINT16,
        library_versions=trained.library_versions,
        scores=trained.scores,
    )
    models.mkdir(exist_ok=True)
    bundle.save(bundle.seal(card, trained.forest), models / f"{name}.segmodel")


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[Client]:
    with daemon.client() as opened:
        yield opened
