"""Networks on cards: what their libraries are told, and what a lane makes of what they say. Needs no card."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from segmentd.compute import network, onnx_session, tensorflow_device
from segmentd.compute.on_card import OnCard
from segmentd.engine import selftest_network
from segmentd.engine.array_models import DeviceNetwork
from segmentd.engine.card_networks import CardNetworks
from segmentd.engine.cuda_device import WORKING_BYTES, CudaDevice
from segmentd.engine.device import DeviceLostError, DeviceOutOfMemoryError, DeviceRefusesError
from segmentd.engine.device_lane import DeviceLane
from segmentd.engine.lane import CpuLane
from segmentd.engine.lanes import whole_plane
from segmentd.engine.source import ArraySource
from segmentd.errors import Reason, SegmentdError
from segmentd.models import files
from segmentd.records import SegmentOptions

from .numpy_twin import Twin

CARD = OnCard(3, 5 << 30)


class Told:
    """A network whose library does as told."""

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute

    def on_card(self, card: OnCard) -> Callable[[Any], Any]:
        return self._compute


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "AllocateRawInternal Failed to allocate memory for requested buffer of size 8",
            DeviceOutOfMemoryError,
        ),
        ("Available memory of 12 is smaller than requested bytes of 99", DeviceOutOfMemoryError),
        ("CUDA failure 2: out of memory ; GPU=0", DeviceOutOfMemoryError),
        ("OOM when allocating tensor with shape[8,64,290,290]", DeviceOutOfMemoryError),
        ("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED", DeviceOutOfMemoryError),
        ("CUDA failure 700: an illegal memory access was encountered", DeviceLostError),
        ("CUDNN_STATUS_EXECUTION_FAILED", DeviceLostError),
        ("Kernel for Resize(19) is not implemented\nhere", DeviceRefusesError),
    ],
)
def test_errors_are_known_by_their_words(said: str, kind: type[Exception]) -> None:
    def fail(values: np.ndarray) -> np.ndarray:
        raise SegmentdError(Reason.MODEL_UNUSABLE, "it cannot be run") from RuntimeError(said)

    networks, model = CardNetworks(), Told(fail)
    networks.load(model, CARD)
    with pytest.raises(kind) as caught:
        networks.evaluate(model, np.zeros((6, 1), np.float32))
    assert getattr(caught.value, "batch", 6) == 6
    networks.unload(model)
    with pytest.raises(DeviceLostError, match="not on the device"):
        networks.evaluate(model, np.zeros((6, 1), np.float32))


def test_an_onnxruntime_for_processors_is_refused_by_the_name_of_the_extra() -> None:
    model = selftest_network.test_network()
    on_device = DeviceNetwork(model.card, model.network, model.spec)
    with pytest.raises(DeviceRefusesError, match=r"segmentd\[onnx-gpu\]"):
        CardNetworks().load(on_device, CARD)


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An onnxruntime that says it has cards and computes on the processor; what it was asked for."""
    asked: list[Any] = []
    real, loads = onnxruntime.InferenceSession, inspect.signature(onnxruntime.preload_dlls)

    def session(onnx: bytes, options: Any, providers: list[Any], **more: Any) -> Any:
        asked.append(providers)
        opened = real(onnx, options, providers=providers[-1:], **more)
        names = [one if isinstance(one, str) else one[0] for one in providers]
        return SimpleNamespace(get_inputs=opened.get_inputs, run=opened.run, get_providers=lambda: names)

    def preload_dlls(**given: Any) -> None:
        asked.append(loads.bind(**given).arguments)

    available = [onnx_session.ON_CARD, onnx_session.ON_CPU]
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload_dlls)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    return asked


def test_a_session_on_a_card_is_told_its_limit_and_no_tf32(faked: list[Any]) -> None:
    model = selftest_network.test_network()
    tiles = np.random.default_rng(0).random((2, 1, 128, 128), np.float32)
    here = network.Network(model.network, model.spec).scores(tiles)
    there = network.Network(model.network, model.spec, card=CARD).scores(tiles)
    np.testing.assert_array_equal(here, there)
    on_cpu, loaded, (on_card, beside) = faked
    assert on_cpu == [beside] == [onnx_session.ON_CPU]
    assert loaded == {"msvc": False, "directory": ""}
    name, options = on_card
    assert name == onnx_session.ON_CARD
    assert (options["device_id"], options["gpu_mem_limit"], options["use_tf32"]) == ("3", str(5 << 30), "0")


def test_cuda_libraries_that_cannot_be_loaded_are_found_out(
    faked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SimpleNamespace(get_providers=lambda: [onnx_session.ON_CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *given, **named: made)
    with pytest.raises(SegmentdError, match="CUDA libraries cannot be loaded") as caught:
        onnx_session.opened(b"", 1, CARD)
    assert (caught.value.reason, caught.value.metadata["extra"]) == (Reason.MISSING_EXTRA, "onnx-gpu")


def test_a_card_computes_networks_and_the_field(
    faked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole lane for a card, with numpy behind CuPy's namespace and onnxruntime on the processor."""
    monkeypatch.setattr("segmentd.models.trial.run", lambda model: None)
    twin = Twin(SimpleNamespace())  # type: ignore[arg-type]  # no kernel of ours is started
    device = CudaDevice(twin, 1, "a card", "50%")  # type: ignore[arg-type]
    path = tmp_path / "network.segmodel"
    files.save(selftest_network.test_network(), path)
    cpu = CpuLane(2, for_devices=True)
    lane = DeviceLane(device, cpu, required=True)
    plane = np.random.default_rng(0).integers(0, 60_000, (1, 150, 200), np.uint16)
    try:
        lane.load(path)
        assert faked[-1][0][1]["gpu_mem_limit"] == str(((4 << 30) - WORKING_BYTES) // 2)
        for options in (SegmentOptions(), SegmentOptions(postprocessing="crf", confidence="marginal")):
            done = whole_plane(plane, lane.segment(path, ArraySource(plane), options))
            expected = cpu.segment_array(path, plane, options)
            np.testing.assert_array_equal(done.labels, expected.labels)
            assert np.abs(done.confidence.astype(int) - expected.confidence).max() <= 1
            assert (done.device, done.device_reason) == ("cuda:1", "")
        lane.unload(path)
    finally:
        lane.close()


class FakeConfig:
    """`tensorflow.config` on a machine with two cards; notes what it was told."""

    def __init__(self, running: bool) -> None:
        self.told: list[Any] = []
        self.experimental = SimpleNamespace(
            enable_tensor_float_32_execution=lambda on: self.told.append(("tf32", on)),
            enable_op_determinism=lambda: self.told.append("deterministic"),
        )
        self._running = running

    def list_physical_devices(self, kind: str | None = None) -> list[Any]:
        return [SimpleNamespace(name=f"/physical_device:GPU:{number}") for number in range(2)]

    def set_visible_devices(self, devices: list[Any], kind: str) -> None:
        if self._running:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        self.told.append([one.name for one in devices])

    def LogicalDeviceConfiguration(self, memory_limit: int) -> int:  # noqa: N802
        return memory_limit

    def set_logical_device_configuration(self, device: Any, limits: list[int]) -> None:
        self.told.append((device.name, limits))


def test_tensorflow_on_a_card_is_told_its_limit_and_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    config = FakeConfig(running=False)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))  # type: ignore[arg-type]
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    _, device = tensorflow_device.told(1, OnCard(1, 5 << 30))
    name = "/physical_device:GPU:1"
    assert (device, config.told) == ("/GPU:0", [[name], (name, [5120]), ("tf32", False), "deterministic"])
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    config.told.clear()
    config._running = True
    tensorflow_device.told(1, OnCard(1, 5 << 30))
    assert config.told == []
    with pytest.raises(SegmentdError, match=r"segmentd\[deep-gpu\]") as caught:
        tensorflow_device.on_the_card(OnCard(2, 1))
    assert caught.value.metadata["extra"] == "deep-gpu"


def test_tensorflow_in_the_daemon_sees_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    config = SimpleNamespace(
        list_physical_devices=lambda: seen.append(os.environ.get("CUDA_VISIBLE_DEVICES")),
        threading=SimpleNamespace(
            set_intra_op_parallelism_threads=seen.append, set_inter_op_parallelism_threads=seen.append
        ),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(config=config))  # type: ignore[arg-type]
    for before in (None, "1"):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if before is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
        _, device = tensorflow_device.told(2, None)
        assert (device, seen) == ("/CPU:0", ["-1", 1, 2])
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
        seen.clear()


@pytest.mark.slow
def test_what_we_tell_tensorflow_is_there() -> None:
    """In a process of its own: TensorFlow may be told before its first use only."""
    pytest.importorskip("tensorflow", reason="needs the extra 'deep'")
    code = """
import inspect
import tensorflow

config = tensorflow.config
calls = {
    config.set_visible_devices: (["x"], "GPU"),
    config.set_logical_device_configuration: ("x", ["y"]),
    config.list_physical_devices: ("GPU",),
    config.experimental.enable_tensor_float_32_execution: (False,),
    config.experimental.enable_op_determinism: (),
}
for function, given in calls.items():
    inspect.signature(function).bind(*given)
assert config.LogicalDeviceConfiguration(memory_limit=5120).memory_limit == 5120
assert config.list_physical_devices("CPU")[0].name == "/physical_device:CPU:0"
config.experimental.enable_tensor_float_32_execution(False)
assert not config.experimental.tensor_float_32_execution_enabled()
config.experimental.enable_op_determinism()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
