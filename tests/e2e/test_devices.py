"""A device that fails: no image is lost, labels are the CPU's, and every result says who made it and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmentctl import DaemonError, Result
from segmentctl.client import Client
from segmentd.engine.lane import CpuLane
from segmentd.records import SegmentOptions
from segmentd.v1.watch_service_pb2 import Watch

from .daemon import DaemonProcess, wait_until
from .images import blobs, write_blobs
from .test_instances import last_line, start_in_vain

pytestmark = pytest.mark.e2e
# More than one batch of the simulated device.
TILE = 32
FAULTS = ("oom_above:4", "oom_always", "lost_after:10", "nan_after:5", "abort_after:10", "slow:0.01")


@pytest.fixture(scope="module")
def cpu(blobs_model: Path) -> Iterator[CpuLane]:
    """The model on the CPU of this process."""
    lane = CpuLane(1)
    lane.load(blobs_model)
    yield lane
    lane.close()


def simulated(place: Callable[..., DaemonProcess], fault: str) -> DaemonProcess:
    daemon = place(tile=TILE)
    daemon.environment["SEGMENTD_FAKE_DEVICE"] = fault
    return daemon


def check(result: Result, cpu: CpuLane, model: Path) -> str:
    """Compare a result with the CPU's own; return its device."""
    segmentation = result.segmentation
    assert segmentation.state == segmentation.STATE_SUCCEEDED, result.error
    pixels = tifffile.imread(segmentation.source_path.decode())[np.newaxis]
    expected = cpu.segment_array(model, pixels, SegmentOptions(tile_px=TILE))
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_array_equal(result.confidence, expected.confidence)
    assert segmentation.device in ("cpu", "simulated:0", "simulated:0+cpu")
    assert (segmentation.device == "simulated:0") == (segmentation.device_reason == "")
    return str(segmentation.device)


def frames_through(daemon: DaemonProcess, frames: int, cpu: CpuLane, model: Path) -> list[str]:
    """Send frames through a device that fails, then more until it is in use again; return the devices."""
    sent = count()

    def send() -> None:
        write_blobs(daemon.hot / f"{next(sent):03d}.tif", 7, (150, 160))

    with daemon.start(), daemon.client() as client:
        results = client.subscribe("hot", start="oldest", timeout=60)
        for _ in range(frames):
            send()
        devices = [check(next(results), cpu, model) for _ in range(frames)]
        # The device comes back after a while: the daemon's clock decides when.
        comes_back = daemon.environment["SEGMENTD_FAKE_DEVICE"] != "oom_always"
        while comes_back and "simulated:0" not in devices[frames:]:
            send()
            devices.append(check(next(results), cpu, model))
        results.close()
        device = client.server().devices[0]
        # Frames that come together share batches, as far as the device computes at all.
        assert device.batch_tile_count >= device.batch_count
        assert client.server().last_event_number == next(sent) == len(devices)
        assert [device.name for device in client.server().devices] == ["simulated:0", "cpu"]
        assert client.watch("hot").failed_count == 0
    return devices[:frames]


def test_frames_through_a_device_that_gets_lost(
    place: Callable[..., DaemonProcess], cpu: CpuLane, blobs_model: Path
) -> None:
    devices = frames_through(simulated(place, "lost_after:10"), 6, cpu, blobs_model)
    assert any("simulated:0" in device for device in devices)
    assert set(devices) - {"simulated:0"}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_forty_frames_through_each_fault(
    place: Callable[..., DaemonProcess], cpu: CpuLane, blobs_model: Path, fault: str
) -> None:
    used = set(frames_through(simulated(place, fault), 40, cpu, blobs_model))
    if fault in ("oom_above:4", "slow:0.01"):
        assert used == {"simulated:0"}
    elif fault == "oom_always":
        assert used == {"cpu"}
    else:
        assert "simulated:0+cpu" in used


def refusal_of(client: Client) -> str:
    """Segment a plane that must be refused; return what is said."""
    with pytest.raises(DaemonError) as refused:
        client.segment(blobs(1), "blobs")
    assert (refused.value.reason, refused.value.code) == ("DEVICE_UNAVAILABLE", "FAILED_PRECONDITION")
    return str(refused.value)


@pytest.mark.slow
def test_a_required_device_that_fails_holds_the_watch(
    place: Callable[..., DaemonProcess], cpu: CpuLane, blobs_model: Path
) -> None:
    """Nothing fails and nothing is computed on the CPU; another start with a better device does the work."""
    daemon = simulated(place, "oom_always")
    daemon.device["require_gpu"] = True
    write_blobs(daemon.hot / "a.tif", 7)
    with daemon.start(), daemon.client() as client:
        wait_until(lambda: client.watch("hot").state == Watch.STATE_FAILED, "the watch says that it waits")
        assert "device.require_gpu forbids the CPU" in client.watch("hot").state_reason
        assert "out of memory" in refusal_of(client)
        assert client.server().last_event_number == 0
        daemon.stop()
        daemon.environment["SEGMENTD_FAKE_DEVICE"] = "slow:0"
        daemon.start()
        with client.subscribe("hot", start="oldest", timeout=60) as results:
            assert check(next(results), cpu, blobs_model) == "simulated:0"


@pytest.mark.slow
def test_models_on_a_device_with_little_memory(
    place: Callable[..., DaemonProcess], cpu: CpuLane, blobs_model: Path
) -> None:
    daemon = simulated(place, "memory:1000000000")
    daemon.device["memory_budget"] = "400MiB"
    write_blobs(daemon.hot / "a.tif", 7)
    with daemon.start(), daemon.client() as client:
        with client.subscribe("hot", start="oldest", timeout=60) as results:
            assert check(next(results), cpu, blobs_model) == "simulated:0"
        device = client.server().devices[0]
        assert (list(device.resident_models), device.model_load_count) == (["blobs"], 1)
        assert (device.memory_budget_bytes, device.memory_used_bytes > 0) == (400 << 20, True)
        assert client.load_model("blobs").device == "simulated:0"
        daemon.stop()
        daemon.environment["SEGMENTD_FAKE_DEVICE"] = "memory:1000"
        write_blobs(daemon.hot / "b.tif", 8)
        daemon.start()
        with client.subscribe("hot", start="oldest", timeout=60) as results:
            assert [check(next(results), cpu, blobs_model) for _ in range(2)] == ["simulated:0", "cpu"]
        with pytest.raises(DaemonError, match="simulated:0 has no room for the model") as refused:
            client.load_model("blobs")
        assert refused.value.reason == "DEVICE_UNAVAILABLE"


def test_a_required_gpu_that_does_not_exist_exits_78(tmp_path: Path) -> None:
    ended = start_in_vain(
        tmp_path,
        server={"listen": "127.0.0.1:0"},
        journal={"folder": "journal"},
        device={"require_gpu": True},
    )
    assert ended.returncode == 78, ended.stderr
    assert last_line(ended).startswith("device.require_gpu = true: ")
