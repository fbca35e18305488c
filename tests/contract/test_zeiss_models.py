"""The models of the shared test data: valid ones give the labels that they are known for, others a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from segmentd.engine.lane import CpuLane
from segmentd.engine.source import ArraySource, Stack, StackPlane
from segmentd.errors import Reason, SegmentdError
from segmentd.models import files, packages
from segmentd.models.fit import used_channels
from segmentd.records import PixelType, SegmentOptions

GENERATED = ("tri_gray_256.czann", "tri_gray_256.czseg", "tri_gray_256.czmodel", "dynamic_gray.czann")
REFUSED = {
    "generated/bad_class_count.czann": "2 classes are named, but the network tells 3 apart",
    "generated/bad_input_shape.czann": "InputShape [256, 256, 2], but the network takes [256, 256, 1]",
    "generated/bad_model_truncated.czann": "cut off",
    "generated/bad_no_metadata.czann": "0 metadata files",
    "generated/bad_no_model.czann": "0 networks",
    "generated/bad_not_a_zip.czann": "not a zip",
    "generated/bad_savedmodel_inside.czann": "TensorFlow SavedModel",
    "generated/bad_type.czann": "Type 'Telepathy'",
    "generated/bad_zip_slip.czann": "unsafe name",
    "real/simple_regmodel_out5.czann": "InputShape [512, 512, 5], but the network takes [512, 512, 1]",
}


@pytest.fixture(scope="module")
def lane() -> Iterator[CpuLane]:
    lane = CpuLane(2)
    yield lane
    lane.close()


@pytest.fixture(scope="session")
def zeiss(shared_data: Path) -> Path:
    return shared_data / "zeiss"


def smooth(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The 5 x 5 Gaussian of the generated networks: sigma 1, edge pixels repeated."""
    steps = np.arange(5) - 2
    kernel = np.outer(*[np.exp(-(steps**2) / 2.0)] * 2)
    return ndimage.correlate(pixels / np.iinfo(pixels.dtype).max, kernel / kernel.sum(), mode="nearest")


def scene(height: int, width: int, dtype: Any = np.uint16) -> npt.NDArray[Any]:
    y, x = np.ogrid[:height, :width]
    noise = np.random.default_rng(1).normal(0, 0.01, (height, width))
    values = (0.5 + 0.45 * np.sin(y / 17.0) * np.cos(x / 23.0) + noise).clip(0, 1)
    return np.round(values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("name", GENERATED)
def test_known_networks_give_known_labels(lane: CpuLane, zeiss: Path, name: str) -> None:
    path = zeiss / "generated" / name
    lane.load(path)
    levels = (0.35, 0.65) if name.startswith("tri") else (0.5,)
    for shape in ((600, 700), (100, 90)):
        pixels = scene(*shape)
        labels = lane.segment_array(path, pixels[None], SegmentOptions()).labels
        np.testing.assert_array_equal(labels, 1 + sum(smooth(pixels) > level for level in levels))


def test_the_colour_network_looks_at_blue(lane: CpuLane, zeiss: Path) -> None:
    path = zeiss / "generated" / "two_bgr_128.czann"
    card = lane.load(path)
    colours = np.stack([scene(150, 200, np.uint8)[::step] for step in (1, 1, -1)])
    channels = used_channels(card, PixelType.UINT8, ("red", "green", "blue"), "image")
    strips = lane.segment(path, ArraySource(colours), SegmentOptions(), channels)
    labels = np.concatenate([strip.labels for strip in strips])
    np.testing.assert_array_equal(labels, 1 + (smooth(colours[2]) > 0.5))


def test_the_known_regression_gives_the_known_image(lane: CpuLane, zeiss: Path) -> None:
    path = zeiss / "generated" / "regression_half.czann"
    lane.load(path)
    pixels = scene(300, 150)
    image = lane.segment_array(path, pixels[None], SegmentOptions()).image
    assert image is not None
    np.testing.assert_allclose(image[0], 0.5 * pixels + 0.1 * 65535, atol=0.51)


@pytest.mark.slow
def test_a_real_network_runs(lane: CpuLane, zeiss: Path) -> None:
    path = zeiss / "real" / "simple_nuclei_segmodel.czann"
    card = lane.load(path)
    assert ([entry.name for entry in card.classes], card.border_px) == (["Background", "Nucleus"], 4)
    result = lane.segment_array(path, scene(300, 400)[None], SegmentOptions())
    assert set(np.unique(result.labels)) <= {1, 2}
    assert result.confidence.min() >= 50


@pytest.mark.slow
def test_a_real_regression_gives_an_image(lane: CpuLane, zeiss: Path) -> None:
    path = zeiss / "real" / "simple_regmodel.czann"
    card = lane.load(path)
    assert (card.kind, card.classes, card.border_px) == ("regression", (), 4)
    image = lane.segment_array(path, scene(200, 300)[None], SegmentOptions()).image
    assert image is not None
    assert (image.shape, image.dtype) == ((1, 200, 300), np.uint16)


@pytest.mark.slow
def test_a_real_denoiser_takes_noise_away(lane: CpuLane, zeiss: Path) -> None:
    path = zeiss / "real" / "LiveDenoise_DAPI.czann"
    lane.load(path)
    clean = scene(200, 300) / 20.0
    noise = np.random.default_rng(2).normal(0, 2000, clean.shape)
    noisy = (clean + noise).clip(0, 65535).astype(np.uint16)
    image = lane.segment_array(path, noisy[None], SegmentOptions(tile_px=256)).image
    assert image is not None
    before, after = (np.sqrt(np.mean((each - clean) ** 2)) for each in (noisy, image[0]))
    assert after < 0.5 * before


def test_the_known_network_for_volumes(lane: CpuLane, zeiss: Path) -> None:
    path = zeiss / "generated" / "volume_8x64x64.czann"
    assert lane.load(path).volume
    volume = np.random.default_rng(3).integers(0, 256, (21, 1, 100, 70)).astype(np.uint8)
    stack = Stack(len(volume), lambda z: ArraySource(volume[z]))
    for z in range(len(volume)):
        strips = list(lane.segment(path, StackPlane(stack, z), SegmentOptions()))
        labels = np.concatenate([strip.labels for strip in strips])
        np.testing.assert_array_equal(labels, 1 + (volume[z, 0] / 255 > 0.5))
    assert not stack.results


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_packages_are_refused_with_a_reason(zeiss: Path, name: str, tmp_path: Path) -> None:
    with pytest.raises(SegmentdError) as caught:
        files.load(zeiss / name)
    assert caught.value.reason is Reason.MODEL_UNUSABLE
    assert REFUSED[name] in caught.value.message
    with pytest.raises(SegmentdError):
        packages.read(zeiss / name, name)
    assert list(tmp_path.iterdir()) == []
