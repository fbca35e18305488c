"""SavedModels give what TensorFlow computes, and what is known of them, in lanes and in the daemon."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentd.compute import tensorflow_device
from segmentd.compute.network import Network
from segmentd.compute.on_card import OnCard
from segmentd.engine.array_models import DeviceNetwork
from segmentd.engine.lane import CpuLane
from segmentd.errors import Reason, SegmentdError
from segmentd.models import files, trial
from segmentd.models.network_model import NetworkModel
from segmentd.records import SegmentOptions

from ..e2e.daemon import DaemonProcess
from ..unit import tiny_networks as tiny
from ..unit import tiny_saved_models as saved

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def tensorflow() -> Any:
    return pytest.importorskip("tensorflow", reason="needs the extra 'deep'")


@pytest.fixture
def lane() -> Iterator[CpuLane]:
    made = CpuLane(2)
    yield made
    made.close()


def scene(height: int, width: int) -> np.ndarray:
    y, x = np.ogrid[:height, :width]
    noise = np.random.default_rng(1).normal(0, 0.02, (height, width))
    return np.round((0.5 + 0.45 * np.sin(y / 9.0) * np.cos(x / 11.0) + noise).clip(0, 1) * 255).astype(
        np.uint8
    )


def u_net(tensorflow: Any) -> Any:
    """A network with the layers that such packages use, and random weights."""

    class Net(tensorflow.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            rng = np.random.default_rng(3)
            shapes = {"down": (3, 3, 1, 6), "deep": (3, 3, 6, 8), "up": (2, 2, 6, 8), "out": (1, 1, 12, 3)}
            self.kernels = {
                name: tensorflow.Variable(rng.normal(0, 0.5, shape).astype(np.float32), name="kernel")
                for name, shape in shapes.items()
            }
            self.scale = tensorflow.Variable(rng.random(6).astype(np.float32), name="gamma")
            self.mean = tensorflow.Variable(rng.random(6).astype(np.float32), trainable=False, name="mean")

        @tensorflow.function(  # type: ignore[untyped-decorator,unused-ignore]
            input_signature=[tensorflow.TensorSpec([None, 32, 48, 1], tensorflow.float32)]
        )
        def __call__(self, image: Any) -> Any:
            nn, kernels = tensorflow.nn, self.kernels
            down = nn.conv2d(nn.l2_normalize(image + 0.1, -1) * image, kernels["down"], 1, "SAME")
            down, *_ = tensorflow.compat.v1.nn.fused_batch_norm(
                nn.relu(down), self.scale, self.mean, self.mean, self.scale, is_training=False
            )
            deep = nn.leaky_relu(nn.conv2d(nn.max_pool2d(down, 2, 2, "SAME"), kernels["deep"], 1, "SAME"))
            size = tensorflow.stack([tensorflow.shape(image)[0], 32, 48, 6])
            up = nn.conv2d_transpose(deep, kernels["up"], size, 2)
            small = tensorflow.image.resize(down, (16, 24))
            both = tensorflow.concat([up, tensorflow.image.resize(small, (32, 48))], -1)
            tensorflow.debugging.assert_all_finite(both, "finite")
            return nn.softmax(nn.conv2d(both, kernels["out"], 1, "SAME"))

    return Net()


def packed(folder: Path) -> bytes:
    archive = shutil.make_archive(str(folder), "zip", folder)
    return Path(archive).read_bytes()


def test_a_real_saved_model_gives_what_tensorflow_gives(tensorflow: Any, tmp_path: Path) -> None:
    net = u_net(tensorflow)
    tensorflow.saved_model.save(net, str(tmp_path / "net"), signatures=net.__call__)
    data = packed(tmp_path / "net")
    assert any(info.is_dir() for info in zipfile.ZipFile(io.BytesIO(data)).infolist())
    model = files.parse(tiny.czann(data), "net", "net")
    assert isinstance(model, NetworkModel)
    assert b"RestoreV2" not in model.network
    tiles = np.random.default_rng(4).random((3, 1, 32, 48), dtype=np.float32)
    theirs = net(tensorflow.constant(np.moveaxis(tiles, 1, -1))).numpy()
    np.testing.assert_allclose(Network(model.network, model.spec, 2).scores(tiles), theirs, rtol=0, atol=1e-6)
    assert np.ptp(theirs) > 0.5


def test_a_graph_whose_answer_is_known(tensorflow: Any, lane: CpuLane, tmp_path: Path) -> None:
    path = tmp_path / "levels.czseg"
    path.write_bytes(tiny.czseg(saved.saved_model(), Channels='<Item PixelType="Gray8" />'))
    lane.load(path)
    for shape in ((70, 130), (20, 30)):
        pixels = scene(*shape)
        result = lane.segment_array(path, pixels[None], SegmentOptions())
        np.testing.assert_array_equal(result.labels, saved.expected(pixels, 255))
    # The graph's variables are no longer those of its file: each model has its own.
    other = tmp_path / "other.czann"
    values = {**saved.VALUES, "b/.VALUE": saved.OFFSET[::-1].copy()}
    other.write_bytes(tiny.czann(saved.saved_model(values=values)))
    lane.load(other)
    pixels = scene(70, 130)
    assert np.any(
        lane.segment_array(other, pixels[None], SegmentOptions()).labels != saved.expected(pixels, 255)
    )
    again = lane.segment_array(path, pixels[None], SegmentOptions()).labels
    np.testing.assert_array_equal(again, saved.expected(pixels, 255))


def test_a_graph_for_a_card_with_the_processor_in_its_place(
    tensorflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorflow_device, "CARD", tensorflow_device.CPU)
    monkeypatch.setattr(tensorflow_device, "on_the_card", lambda card: tensorflow)
    model = files.parse(tiny.czann(saved.saved_model()), "x", "x")
    assert isinstance(model, NetworkModel)
    tiles = np.random.default_rng(4).random((3, 1, 32, 48), dtype=np.float32)
    there = DeviceNetwork(model.card, model.network, model.spec).on_card(OnCard(0, 1 << 30))(tiles)
    np.testing.assert_array_equal(there, Network(model.network, model.spec).scores(tiles))


def test_a_graph_that_tensorflow_cannot_run_is_refused_by_the_trial(tensorflow: Any) -> None:
    values = {**saved.VALUES, "w/.VALUE": np.ones((1, 1, 2, 3), np.float32)}
    model = files.parse(tiny.czann(saved.saved_model(values=values)), "x", "x")
    assert isinstance(model, NetworkModel)
    with pytest.raises(SegmentdError, match="TensorFlow") as caught:
        trial.run(model)
    assert caught.value.reason is Reason.MODEL_UNUSABLE


def test_the_daemon_imports_and_uses_one(tensorflow: Any, tmp_path: Path) -> None:
    sent = tmp_path / "sent.czseg"
    sent.write_bytes(tiny.czseg(saved.saved_model(), ModelName="Old levels"))
    with DaemonProcess(tmp_path / "d", tmp_path / "models", watches=[]) as daemon, daemon.client() as client:
        model = client.import_model(sent)
        assert (model.kind, [entry.display_name for entry in model.classes]) == (
            "network",
            ["c1", "c2", "c3"],
        )
        pixels = scene(64, 90)
        labels, confidence = client.segment(pixels, "old-levels")
        np.testing.assert_array_equal(labels, saved.expected(pixels, 255))
        assert confidence.min() >= 33
        changed = tmp_path / "hostile.czann"
        inner = saved.inner(
            *saved.INNER_NODES, saved.node("last", "ReadFile", "image"), result="last:contents:0"
        )
        changed.write_bytes(tiny.czann(saved.saved_model(functions=[inner, saved.restore()])))
        with pytest.raises(Exception, match="ReadFile"):
            client.import_model(changed, model_id="old-levels", overwrite=True)
        assert client.model("old-levels").digest == model.digest
        daemon.stop()
