"""`segmentd verify`: the same labels from every device and kernel, and what is said where they differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
from typer.testing import CliRunner

from segmentctl.cli.models import verdict_text
from segmentd.cli.main import app
from segmentd.compute.packets.choice import runnable_kernels
from segmentd.engine import comparison, selftest_network, simulated_device
from segmentd.engine.comparison import Found
from segmentd.models import bundle, files
from segmentd.rpc import convert

from .. import tiny_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model.save(tmp_path / "cells.segmodel")


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return done.exit_code, done.stdout


def test_every_kernel_and_device_gives_the_same_labels(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(simulated_device.VARIABLE, "slow:0,oom_above:2")
    image = tmp_path / "a.tif"
    pixels = np.random.default_rng(1).integers(0, 255, (150, 170), np.uint8)
    tifffile.imwrite(image, pixels)
    code, text = run(model, image, "--json", "--threads", "2")
    told = json.loads(text)
    assert (code, told["agree"], told["stored"]) == (0, True, True)
    names = [device["name"] for device in told["devices"]]
    kernels = [f"kernel {kernel}" for kernel in runnable_kernels()]
    assert names == ["plain formulas", *kernels, "cpu, 2 threads", "simulated:0", "simulated:1"]
    assert {device["equal_labels"] for device in told["devices"]} == {1.0}
    assert {device["pixels"] for device in told["devices"]} == {pixels.size}
    card = bundle.load(model).card
    assert card.verification["agree"] is True
    assert card.verification["digest"] == card.digest
    assert card.verification["images"] == ["a.tif"]
    shown = convert.verification_message(card.verification)
    assert shown.agrees
    assert {device.name for device in shown.devices} > {shown.compared_with}
    assert "the same labels as plain formulas" in verdict_text(shown)
    assert not convert.verification_message({"time": "soon"}).devices
    # Said once more, with a made-up image, in a table.
    code, text = run(model, "--no-store")
    assert code == 0 and "The same labels everywhere" in text and "not asked to" in text


def test_a_device_that_fails_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(simulated_device.VARIABLE, "oom_always")
    code, text = run(model, "--no-store")
    assert code == 1
    assert "simulated:0 is out of memory (out of memory with a batch of 1)" in text


def test_a_wrong_device_is_found_out(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = simulated_device.SimulatedDevice(simulated_device.parse("slow:0"))
    monkeypatch.setattr(comparison, "devices_of", lambda settings: ([device], ""))
    right = simulated_device._tile

    def one_wrong_row(batch, pixels, broken):
        tile = right(batch, pixels, broken)
        tile.labels[3] = 3 - tile.labels[3]
        return tile

    monkeypatch.setattr(simulated_device, "_tile", one_wrong_row)
    code, text = run(model, "--json", "--no-store")
    found = {device["name"]: device for device in json.loads(text)["devices"]}
    assert code == 1
    assert found["simulated:0"]["equal_labels"] == 1 - 1 / 512


def test_the_file_keeps_all_else(model: Path) -> None:
    before = bundle.load(model)
    assert run(model)[0] == 0
    after = bundle.load(model)
    assert after.card.digest == before.card.digest
    assert after.card.verification and not before.card.verification
    np.testing.assert_array_equal(after.forest.threshold, before.forest.threshold)


def test_a_card_that_cannot_be_written_is_said(model: Path) -> None:
    other = model.with_suffix(".onnx")
    model.rename(other)
    code, text = run(other)
    assert code == 0
    assert "package of another maker" in text


def test_networks_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(simulated_device.VARIABLE, "slow:0")
    made = selftest_network.test_network()
    onnx.checker.check_model(onnx.load_from_string(made.network))
    files.save(made, tmp_path / "network.segmodel")
    code, text = run(tmp_path / "network.segmodel", "--json", "--threads", "1")
    told = json.loads(text)
    assert (code, told["agree"], told["stored"]) == (0, True, True)
    assert [device["name"] for device in told["devices"]] == ["cpu, 1 thread", "simulated:0"]
    assert {device["equal_labels"] for device in told["devices"]} == {1.0}


@pytest.mark.parametrize(
    ("pixels", "different", "agrees"), [(100_000, 1, True), (100_000, 2, False), (9, 1, True)]
)
def test_what_counts_as_the_same(pixels: int, different: int, agrees: bool) -> None:
    assert Found("x", pixels, different).agrees is agrees
    assert not Found("x", fault="gone").agrees
    assert Found("x", 100_000, 100, promised=comparison.NETWORK_PIXELS_FOR_EACH_DIFFERENCE).agrees
    assert not Found("x", 100_000, 101, promised=comparison.NETWORK_PIXELS_FOR_EACH_DIFFERENCE).agrees
    assert comparison.PIXELS_FOR_EACH_DIFFERENCE == 100_000
