"""What a benchmark computes on, and what is to be expected of a card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentd.compute.cuda import roofline
from segmentd.compute.feature_plan import plan_features
from segmentd.compute.features import filter_sets
from segmentd.compute.forest import ForestArrays
from segmentd.engine import cuda_check, simulated_device
from segmentd.process.gpu_probe import Card, Probe
from segmentd_bench import devices, throughput
from segmentd_bench.errors import BenchmarkError

from .. import tiny_model

SMALL_CARD = roofline.Rates(24, 2.4e9, 272e9)


def test_nodes_are_counted_on_the_way_of_each_pixel() -> None:
    stump = ForestArrays(
        feature=np.array([0, -1, 1, -1, -1], np.int32),
        threshold=np.array([5.0, 0, 7.0, 0, 0]),
        left=np.array([1, -1, 3, -1, -1], np.int32),
        right=np.array([2, -1, 4, -1, -1], np.int32),
        value=np.full((5, 2), 0.5),
        roots=np.array([0], np.int32),
        feature_count=2,
    )
    features = np.array([[5, 0], [6, 7], [np.nan, 8]], np.float32)
    assert roofline.nodes_on_the_way(stump, features) == pytest.approx((1 + 2 + 2) / 3)


def test_the_limits_are_those_of_the_map() -> None:
    """The table in `daemon/README.md`: 350 nodes, tiles of 512 pixels."""
    plan = plan_features(filter_sets()["basic25"], 1)
    limits = roofline.limits(SMALL_CARD, plan, 350, 512)
    assert limits["forest"] == pytest.approx(330, rel=0.02)
    assert limits["memory"] == pytest.approx(700, rel=0.4)
    assert min(limits, key=lambda name: limits[name]) == "forest"


def test_no_card_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(simulated_device.VARIABLE, raising=False)
    monkeypatch.setattr("segmentd.process.gpu_probe.has_cupy", lambda: False)
    with pytest.raises(BenchmarkError, match="--device cuda: there is no card to measure: CuPy is not inst"):
        devices.choose("cuda")
    assert devices.choose("auto").name == devices.choose("cpu").name == "cpu"


def test_what_is_measured_stands_beside_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("a card", 1, 1, "", 24, 2.4e9, 272e9)
    looks: list[int] = []

    def find_cards() -> Probe:
        looks.append(1)
        return Probe((Card("a broken card", 1, 1, "its test failed"), card))

    monkeypatch.delenv(simulated_device.VARIABLE, raising=False)
    monkeypatch.setattr(cuda_check, "find_cards", find_cards)
    monkeypatch.setattr("segmentd.process.gpu_probe.has_cupy", lambda: True)
    chosen = devices.choose("cuda")
    assert chosen.name == "cuda:1"
    pixels = np.random.default_rng(0).integers(0, 255, (1, 64, 64), np.uint8)
    expected = chosen.expected(tiny_model.model(), pixels, None)
    assert chosen.expected(tiny_model.model(), pixels, None) == expected
    assert len(looks) == 1  # a process that tries every card takes seconds
    assert expected["expected_mpx_per_s"] > 0
    assert expected["expected_limit"] in ("forest", "filters", "memory", "launches")
    assert devices.Chosen().expected(tiny_model.model(), pixels, None) == {}


@pytest.mark.slow
def test_small_planes_at_once_share_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(simulated_device.VARIABLE, "slow:0.05")
    tifffile.imwrite(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 255, (48, 48), np.uint8))
    given = throughput.Given(tmp_path / "a.tif", tiny_model.save(tmp_path / "cells.segmodel"))
    matrix = throughput.Matrix(("basic25",), (None,), (1,), (2,), (25,), "auto", at_once=16)
    found = throughput.run(matrix, given, 64, 2)
    assert (found["device"], found["at_once"]) == ("simulated:0", 16)
    assert found["tiles_per_batch"] > 1.5
