"""Watches in trouble say so, hold what they have, delay nobody, and go on by themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from segmentctl import Client
from segmentd.v1.watch_service_pb2 import Watch

from .daemon import DaemonProcess, wait_until
from .images import blobs, write_blobs
from .wire import connected

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def daemon(blobs_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with a watch that is well, one that cannot write, and one whose folder is not there."""
    folder = tmp_path_factory.mktemp("states")
    watches: list[dict[str, Any]] = [
        {"id": name, "folder": name, "model": "blobs", "settle_seconds": 0.2}
        for name in ("well", "held", "late")
    ]
    for name in ("well", "held"):
        (folder / name).mkdir()
    (folder / "blocked").write_text("a file where the results folder should be made")
    watches[1]["results"] = "blocked/results"
    watches[2]["results"] = "late-results"
    with DaemonProcess(folder, blobs_model.parent, watches) as started:
        yield started


@pytest.fixture
def client(daemon: DaemonProcess) -> Iterator[Client]:
    with daemon.client() as made:
        yield made


def is_healthy(daemon: DaemonProcess) -> bool:
    """What health checks of the whole daemon are told; its services answer in any case."""
    with connected(daemon.address) as wire:
        health = health_pb2_grpc.HealthStub(wire.channel)
        whole, service = (
            health.Check(health_pb2.HealthCheckRequest(service=name)).status
            for name in ("", "segmentd.v1.SegmentationService")
        )
    assert service == health_pb2.HealthCheckResponse.SERVING
    return bool(whole == health_pb2.HealthCheckResponse.SERVING)


def sources(client: Client, watch: str, count: int) -> list[str]:
    """Wait for results of a watch, from the oldest; all must have succeeded."""
    with client.subscribe(watch, start="oldest", timeout=25, metadata_only=True) as results:
        got = [next(results).segmentation for _ in range(count)]
    assert all(segmentation.state == segmentation.STATE_SUCCEEDED for segmentation in got)
    return [segmentation.source_display for segmentation in got]


@pytest.mark.slow
def test_a_watch_that_cannot_write_waits_and_delays_nobody(daemon: DaemonProcess, client: Client) -> None:
    for number in range(4):
        write_blobs(daemon.folder / "held" / f"{number}.tif", number)
    wait_until(lambda: client.watch("held").state == Watch.STATE_FAILED, "the watch says that it waits")
    assert "blocked" in client.watch("held").state_reason
    wait_until(lambda: not is_healthy(daemon), "health checks are told")
    write_blobs(daemon.folder / "well" / "a.tif", 5)
    assert sources(client, "well", 1) == ["a.tif"]
    labels, _ = client.segment(blobs(5), "blobs")
    assert np.isin(labels, (1, 2)).all()
    assert (client.watch("held").done_count, client.watch("held").failed_count) == (0, 0)
    (daemon.folder / "blocked").unlink()
    assert sorted(sources(client, "held", 4)) == [f"{number}.tif" for number in range(4)]
    wait_until(lambda: client.watch("held").state == Watch.STATE_ACTIVE, "the watch is well again")
    assert client.watch("held").state_reason == ""
    wait_until(lambda: is_healthy(daemon), "health checks are told")


def test_a_folder_that_comes_and_goes(daemon: DaemonProcess, client: Client) -> None:
    folder = daemon.folder / "late"
    watch = client.watch("late")
    assert watch.state == Watch.STATE_UNREACHABLE
    assert str(folder) in watch.state_reason

    write_blobs(folder / "a.tif", 6)
    assert sources(client, "late", 1) == ["a.tif"]
    assert client.watch("late").state == Watch.STATE_ACTIVE

    folder.rename(daemon.folder / "away")
    wait_until(lambda: client.watch("late").state == Watch.STATE_UNREACHABLE, "its absence is noticed")
    shutil.copytree(daemon.folder / "away", folder)  # the share comes back: same names, other inodes
    write_blobs(folder / "b.tif", 7)
    assert sources(client, "late", 2) == ["a.tif", "b.tif"]
    assert client.watch("late").done_count == 2
