"""The real thing, where a card is: labels and features on each card are the CPU's."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest

from segmentd.compute import fast_features
from segmentd.compute.cuda.tiles import TileProgram
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import filter_sets
from segmentd.compute.packets import compile_forest
from segmentd.engine import selftest
from segmentd.engine.cuda_check import fault_of, find_cards
from segmentd.engine.cuda_device import CudaDevice
from segmentd.process.gpu_probe import Probe
from segmentd.records import PixelType

pytestmark = pytest.mark.gpu


@cache
def cards() -> Probe:
    found = find_cards()
    if not found.cards:
        pytest.skip(f"there is no card: {found.reason}")
    return found


def test_every_card_gives_the_labels_of_the_cpu() -> None:
    assert [card.fault for card in cards().cards] == [""] * len(cards().cards)


def test_every_card_computes_the_features_of_the_cpu() -> None:
    found = cards()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cupy = pytest.importorskip("cupy")
    plan = plan_features(filter_sets()["basic25"], 1)
    pixels = selftest.made_up_plane(1, PixelType.UINT16, 300)
    level = np.zeros(1, np.float32)
    expected = fast_features.stack(plan, pixels.astype(np.float32), level)
    forest = compile_forest(selftest.test_model().forest, plan.plane_of_feature)
    for number, card in enumerate(found.cards):
        device = CudaDevice(cupy, number, card.name)
        device.open()
        with cupy.cuda.Device(number):
            program = TileProgram(cupy, device.launch, plan, forest)
            planes = cupy.asnumpy(program.features(cupy.asarray(pixels), None, level))
        np.testing.assert_allclose(planes[plan.plane_of_feature], expected, rtol=0, atol=1e-5 * 60_000)
        assert fault_of(device) == ""
