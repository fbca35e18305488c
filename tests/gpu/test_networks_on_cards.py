"""Networks, deep features and the random field on every card, in processes of their own, against the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentd.compute import crf
from segmentd.engine import acceptance, selftest, selftest_network
from segmentd.engine.cuda_check import find_cards
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.device_process import CHILD, DeviceProcess, Opener
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.segmenter import BandResult
from segmentd.engine.source import ArraySource
from segmentd.models import files
from segmentd.records import PixelType, SegmentOptions

from ..unit import tiny_networks, tiny_saved_models, vgg19_files
from ..unit.engine.test_network_process import deep_forest

# Of namespaces' functions that the field on cards uses, with positional arguments and names of others.
OPERATIONS: dict[str, tuple[int, tuple[str, ...]]] = {
    "arange": (1, ()),
    "argsort": (1, ("axis",)),
    "ascontiguousarray": (1, ()),
    "asnumpy": (1, ()),
    "bincount": (1, ("weights", "minlength")),
    "concatenate": (1, ()),
    "cumsum": (1, ()),
    "full": (3, ()),
    "lexsort": (1, ()),
    "ones": (2, ()),
    "stack": (1, ("axis",)),
    "take_along_axis": (2, ("axis",)),
    "where": (3, ()),
    "zeros": (2, ()),
}


@pytest.mark.gpu_wheels
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_operation_exists(name: str) -> None:
    cupy = pytest.importorskip("cupy", reason="needs the extra gpu or gpu13: CuPy")
    from .test_cupy_calls import parameters

    positional, keywords = OPERATIONS[name]
    found = parameters(reduce(getattr, name.split("."), cupy))
    assert len(found) >= positional + len(keywords)
    assert set(keywords) <= set(found[positional:])


@pytest.fixture
def cards() -> Iterator[list[DeviceProcess]]:
    found = find_cards()
    if not found.cards:
        pytest.skip(f"there is no card: {found.reason}")
    made = []
    for number, card in enumerate(found.cards):
        opener = Opener(f"{CHILD}:open_card", {"number": number, "name": card.name, "budget": "50%"})
        made.append(DeviceProcess(opener, f"cuda:{number}", card.name, 16))
    yield made
    for device in made:
        device.close()


def compare(card: DeviceProcess, path: Path, options: SegmentOptions, **more: Any) -> BandResult:
    """A plane on the card, which must not be computed on the CPU instead, and on the CPU."""
    cpu = CpuLane(4, for_devices=True, **more)
    lane = DeviceLane(card, cpu, required=True)
    try:
        model = lane.load(path)
        plane = selftest.made_up_plane(model.channel_count, model.pixel_type)
        for _ in range(2):  # the same every time
            done = whole_plane(plane, lane.segment(path, ArraySource(plane), options))
        expected = cpu.segment_array(path, plane, options)
        assert (done.labels == expected.labels).mean() >= acceptance.LEAST_EQUAL_SHARE
        memory = lane.devices()[0].memory
        assert memory is not None and memory.models == (model.id,) and memory.held_bytes > 0
        return done
    finally:
        lane.close()


@pytest.mark.gpu
@pytest.mark.parametrize("postprocessing", ["none", "crf"])
def test_a_network_and_the_field(cards: list[DeviceProcess], tmp_path: Path, postprocessing: Any) -> None:
    files.save(selftest_network.test_network(), tmp_path / "network.segmodel")
    options = SegmentOptions(postprocessing=postprocessing)
    for card in cards:
        assert compare(card, tmp_path / "network.segmodel", options).device == card.name


@pytest.mark.gpu
def test_a_network_of_free_size_and_any_batch(cards: list[DeviceProcess], tmp_path: Path) -> None:
    network = tiny_networks.classifier(shape=("h", "w"))
    (tmp_path / "levels.czann").write_bytes(tiny_networks.czann(network))
    for card in cards:
        assert compare(card, tmp_path / "levels.czann", SegmentOptions(tile_px=512)).device == card.name


@pytest.mark.gpu
def test_a_network_that_tensorflow_saved(cards: list[DeviceProcess], tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra deep-gpu")
    (tmp_path / "old.czseg").write_bytes(tiny_networks.czseg(tiny_saved_models.saved_model()))
    for card in cards:
        assert compare(card, tmp_path / "old.czseg", SegmentOptions()).device == card.name


@pytest.mark.gpu
def test_deep_features(cards: list[DeviceProcess], tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="needs the extra deep-gpu")
    weights = vgg19_files.write(tmp_path)["weights"]
    path = deep_forest(tmp_path, weights, selftest.made_up_plane(1, PixelType.UINT8, 200))
    for card in cards:
        assert compare(card, path, SegmentOptions(), vgg19_weights=weights).device == f"{card.name}+cpu"


@pytest.mark.gpu
def test_a_window_of_the_size_that_planes_have(cards: list[DeviceProcess]) -> None:
    guide = selftest.made_up_plane(1, PixelType.FLOAT32, 896).astype(np.float32)
    scores = np.concatenate([guide, 1 - guide]).clip(0.05, 0.95)
    window, parameters = crf.Window(scores, guide, 832, 1600), crf.Parameters()
    expected = crf.infer(window, parameters)
    for card in cards:
        card.open()
        found = card.marginals(window, parameters)
        assert (found.argmax(axis=0) == expected.argmax(axis=0)).mean() >= acceptance.LEAST_EQUAL_SHARE
