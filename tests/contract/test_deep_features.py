"""Deep features are what Keras' VGG19 finds, whatever the tiling; weights are read, nothing is run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

from segmentd.compute import deep_cells, tensorflow_device
from segmentd.compute.deep import Extractor
from segmentd.compute.deep_sets import VGG19, DeepFeatureSet, deep_sets
from segmentd.compute.on_card import OnCard
from segmentd.compute.tiling import cover
from segmentd.engine.array_models import DeviceFeatures
from segmentd.engine.lane import CpuLane
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.models import bundle, deep_features, training, vgg_weights
from segmentd.records import ModelCard, PixelType, Region, SegmentOptions

from ..unit import vgg19_files
from ..unit.tiny_model import model as tiny_model

pytestmark = pytest.mark.slow
SETS = {entry.name: entry for entry in deep_sets()}
NAMES = list(SETS)


@pytest.fixture(scope="module", autouse=True)
def tensorflow() -> None:
    pytest.importorskip("tensorflow", reason="needs the extra 'deep'")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return vgg19_files.write(tmp_path_factory.mktemp("vgg19"))


@pytest.fixture(scope="module")
def plane(shared_data: Path) -> np.ndarray:
    image = sorted((shared_data / "nuclei_bbbc039" / "images").glob("*.tif"))[0]
    pixels = tifffile.imread(image)[None, :150, :203].astype(np.float64)
    stretched = (pixels - pixels.min()) / np.ptp(pixels) * 65535  # so that all of the range is used
    return stretched.astype(np.uint16)


@pytest.fixture(scope="module")
def lane(files: dict[str, Path]) -> Iterator[CpuLane]:
    lane = CpuLane(2, vgg19_weights=files["weights"])
    yield lane
    lane.close()


def extractor(name: str, files: dict[str, Path]) -> Extractor:
    return deep_features.for_training(SETS[name], files["weights"], 0, 2).extractor


def features_of(extractor: Extractor, pixels: np.ndarray, core: Region) -> np.ndarray:
    """All features of a part of a plane: (h, w, F)."""
    feature_set = extractor.feature_set
    cells = extractor.cells(pixels, core, feature_set.reach_px, None)
    ys, xs = np.nonzero(np.ones((core.height, core.width), bool))
    return deep_cells.sample(cells, feature_set.stride_px, ys, xs).reshape(core.height, core.width, -1)


def test_an_extractor_for_a_card_with_the_processor_in_its_place(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow

    monkeypatch.setattr(tensorflow_device, "CARD", tensorflow_device.CPU)
    monkeypatch.setattr(tensorflow_device, "on_the_card", lambda card: tensorflow)
    here = extractor("deep70", files)
    on_device = DeviceFeatures(tiny_model().card, here.feature_set, here.layers, here.projection)
    grey, expected = on_device.trial
    found = on_device.on_card(OnCard(0, 1 << 30))(grey)
    assert found.shape == on_device.made(grey.shape)
    assert_array_equal(found, expected)
    assert on_device.equal_share(found, expected) == 1.0
    assert on_device.equal_share(1.01 * found, expected) < 0.99


def by_keras(feature_set: DeepFeatureSet, path: Path, plane: np.ndarray) -> np.ndarray:
    """The definition, with Keras' own network, loader, preprocessing and enlargement."""
    import keras

    network = keras.applications.VGG19(include_top=False, weights=None)
    network.load_weights(path)
    part = keras.Model(network.input, network.get_layer(feature_set.layers[-1].name).output)
    margin, stride = 64, feature_set.stride_px
    _, height, width = plane.shape
    around = [(margin, margin + -length % stride) for length in (height, width)]
    grey = np.pad(plane[0].astype(np.float64) / 65535 * 255, around, mode="symmetric")
    image = np.repeat(grey[None, ..., None], 3, axis=3)
    cells = part(keras.applications.vgg19.preprocess_input(image), training=False)
    wide = keras.layers.UpSampling2D(stride, interpolation="bilinear")(cells).numpy()[0]
    return wide[margin : margin + height, margin : margin + width]


@pytest.mark.parametrize("name", ["deep64", "deep128", "deep256"])
def test_features_are_those_of_keras(name: str, files: dict[str, Path], plane: np.ndarray) -> None:
    expected = by_keras(SETS[name], files["weights"], plane)
    found = features_of(extractor(name, files), plane, Region(0, 0, *plane.shape[1:]))
    ranges = np.maximum(np.ptp(expected, axis=(0, 1)), 1e-3)
    assert (np.ptp(expected, axis=(0, 1)) > 0).mean() > 0.7, "features that say nothing prove nothing"
    assert (np.abs(found - expected).max(axis=(0, 1)) / ranges).max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_features_and_labels_do_not_depend_on_tiles(
    name: str, files: dict[str, Path], plane: np.ndarray, lane: CpuLane, tmp_path: Path
) -> None:
    made = extractor(name, files)
    whole = features_of(made, plane, Region(0, 0, *plane.shape[1:]))
    ranges = np.maximum(np.ptp(whole, axis=(0, 1)), 1e-6)
    for core in cover(*plane.shape[1:], 64):
        part = (slice(core.y, core.y + core.height), slice(core.x, core.x + core.width))
        worst = np.abs(features_of(made, plane, core) - whole[part]) / ranges
        assert worst.max() < 1e-4
    path = model_file(tmp_path, name, files["weights"], plane)
    assert lane.load(path).border_px == SETS[name].reach_px
    labels = lane.segment_array(path, plane, SegmentOptions()).labels
    assert {1, 2} <= set(np.unique(labels))
    for options in (SegmentOptions(tile_px=40), SegmentOptions(tile_px=64, border_px=50)):
        assert np.mean(lane.segment_array(path, plane, options).labels == labels) >= 0.999
    strips = list(lane.segment(path, _Rows(plane), SegmentOptions()))
    assert np.mean(np.concatenate([strip.labels for strip in strips]) == labels) >= 0.999


class _Rows(ArraySource):
    """A plane that is read by rows, 50 at a time, which the network's grid is not a multiple of."""

    @property
    def band_rows(self) -> int:
        return 50


def model_file(folder: Path, name: str, weights: Path, plane: np.ndarray, threads: int = 2) -> Path:
    made = deep_features.for_training(SETS[name], weights, 0, threads)
    labels = np.zeros(plane.shape[1:], np.uint8)
    level = np.quantile(plane, 0.9)
    labels[::5, ::5] = np.where(plane[0, ::5, ::5] > level, 2, 1)
    samples = training.collect(plane, labels, SETS[name], "none", made.extractor)
    trained = training.train(samples, 2, list(SETS[name].feature_names))
    card: ModelCard = replace(
        tiny_model().card,
        feature_set=name,
        pixel_type=PixelType.UINT16,
        border_px=SETS[name].reach_px,
        weights_sha256=made.weights_sha256,
    )
    path = folder / f"{name}-{threads}.segmodel"
    bundle.save(bundle.seal(card, trained.forest, made.extractor.projection), path)
    return path


def test_all_forms_of_the_file_hold_the_same_weights(files: dict[str, Path]) -> None:
    one, two = (vgg_weights.load(SETS["deep256"], files[form]) for form in ("weights", "model"))
    assert one.sha256 == two.sha256
    for (kernel, bias), (same_kernel, same_bias), layer in zip(one.layers, two.layers, VGG19, strict=True):
        assert kernel.shape == (3, 3, layer.inputs, layer.outputs)
        assert_array_equal(kernel, same_kernel)
        assert_array_equal(bias, same_bias)
    assert len(vgg_weights.load(SETS["deep64"], files["weights"]).layers) == 2


def test_keras_cache_is_looked_into(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    shutil.copy(files["model"], tmp_path / "models" / vgg_weights.CACHED_NAMES[0])
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    found = vgg_weights.load(SETS["deep64"], None)
    assert found.sha256 == vgg_weights.load(SETS["deep64"], files["weights"]).sha256


def test_files_that_are_something_else_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    import h5py

    def refused(name: str, what: str) -> None:
        with pytest.raises(SegmentdError, match=what) as caught:
            vgg_weights.load(SETS["deep64"], tmp_path / name)
        assert caught.value.reason is Reason.MODEL_UNUSABLE

    (tmp_path / "text.h5").write_text("no HDF5")
    refused("text.h5", "no file of VGG19 weights")
    (tmp_path / "cut.h5").write_bytes(files["weights"].read_bytes()[:5000])
    refused("cut.h5", "no file of VGG19 weights")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    refused("empty.h5", "lacks the layer block1_conv1")
    with h5py.File(tmp_path / "small.h5", "w") as file:
        file["block1_conv1/kernel"] = np.zeros((3, 3, 1, 64), np.float32)
        file["block1_conv1/bias"] = np.zeros(64, np.float32)
    refused("small.h5", "not those of VGG19")
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["block1_conv1/kernel"] = h5py.ExternalLink(str(files["model"]), "model_weights/block1_conv1")
    refused("elsewhere.h5", "leads elsewhere")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        size = 3 * 3 * 3 * 64 * 4
        file.create_dataset(
            "block1_conv1/kernel", (3, 3, 3, 64), "f4", external=[(str(files["model"]), 0, size)]
        )
        file["block1_conv1/bias"] = np.zeros(64, np.float32)
    refused("outside.h5", "plain numbers")


def test_a_model_is_not_computed_with_other_weights(
    files: dict[str, Path], plane: np.ndarray, tmp_path: Path
) -> None:
    import h5py

    path = model_file(tmp_path, "deep64", files["weights"], plane)
    other = tmp_path / "other.weights.h5"
    shutil.copy(files["weights"], other)
    with h5py.File(other, "r+") as file:
        file["layers/conv2d/vars/1"][0] += 1
    lane = CpuLane(1, vgg19_weights=other)
    with pytest.raises(SegmentdError, match="other VGG19 weights"):
        lane.load(path)
    lane.close()


def test_training_is_reproducible_on_any_number_of_threads(
    files: dict[str, Path], plane: np.ndarray, tmp_path: Path
) -> None:
    one, two = (bundle.load(model_file(tmp_path, "deep70", files["model"], plane, n)) for n in (1, 2))
    assert one.card.digest == two.card.digest
    assert_allclose(one.projection, SETS["deep70"].random_projection(0))
