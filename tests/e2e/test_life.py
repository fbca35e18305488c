"""What a service manager sees of a daemon's life, and a second daemon that wants what the first one has."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .daemon import STOP_SECONDS, DaemonProcess, wait_until
from .images import write_blobs
from .scene import Scene
from .test_instances import last_line, start_in_vain

pytestmark = pytest.mark.e2e


class Manager:
    """A service manager's end of `sd_notify`."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.address = address
        self._sock = sock
        self.told: list[str] = []

    def hear(self) -> str:
        """Wait for the next message."""
        self.told.append(self._sock.recv(4096).decode())
        return self.told[-1]

    def hear_until(self, begin: str) -> str:
        """Wait for a message that begins so."""
        while not self.hear().startswith(begin):
            pass
        return self.told[-1]


@pytest.fixture
def manager() -> Iterator[Manager]:
    address = f"@segmentd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(60)
        yield Manager(sock, address)


def managed(daemon: DaemonProcess, manager: Manager, watchdog_seconds: float) -> DaemonProcess:
    daemon.environment["NOTIFY_SOCKET"] = manager.address
    daemon.environment["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
    return daemon


def test_a_service_manager_is_told_of_start_work_and_stop(
    place: Callable[..., DaemonProcess], manager: Manager
) -> None:
    daemon = managed(place(), manager, 0.3)
    write_blobs(daemon.hot / "a.tif", 1)
    with daemon:
        manager.hear_until("READY=1")
        status = [message.removeprefix("STATUS=") for message in manager.told if message.startswith("STATUS")]
        assert status.index("checking the journal") < status.index("loading models")
        assert status.index("loading models") < status.index("looking at the folders")
        assert manager.hear_until("STATUS=1 watch").endswith(("0 results", "1 results"))
        manager.hear_until("WATCHDOG=1")
        manager.hear_until("WATCHDOG=1")
        daemon.signal(signal.SIGTERM)
        manager.hear_until("STOPPING=1")
        assert daemon.wait_for_exit(STOP_SECONDS) == 0


def test_a_signal_while_models_load_ends_the_daemon(
    place: Callable[..., DaemonProcess], manager: Manager
) -> None:
    daemon = managed(place(), manager, 30)
    daemon.launch()
    manager.hear_until("STATUS=loading models")
    daemon.stop()
    assert "READY=1" not in manager.told


def test_work_that_hangs_stops_the_watchdog_but_not_the_end(
    place: Callable[..., DaemonProcess], manager: Manager
) -> None:
    """The device does not answer for ten minutes; the image is done by the next start."""
    daemon = managed(place(), manager, 0.1)
    daemon.environment["SEGMENTD_FAKE_DEVICE"] = "slow:600"
    with daemon.start(), daemon.client() as client:
        write_blobs(daemon.hot / "a.tif", 1)
        manager.hear_until("STATUS=a piece of work does not end")
        wait_until(lambda: client.server().planes_in_flight == 1, "the daemon answers all the same")
        daemon.signal(signal.SIGTERM)
        manager.hear_until("STOPPING=1")
        assert "WATCHDOG=1" not in manager.told[manager.told.index("STOPPING=1") :]
        assert daemon.wait_for_exit(STOP_SECONDS) == 0
        del daemon.environment["SEGMENTD_FAKE_DEVICE"], daemon.environment["NOTIFY_SOCKET"]
        daemon.start()
        with client.subscribe("hot", start="oldest", timeout=60) as results:
            assert next(results).segmentation.device == "cpu"


@pytest.mark.parametrize("shared", ["journal", "folder", "results", "port"])
def test_a_second_daemon_is_told_who_the_first_one_is(scene: Scene, tmp_path: Path, shared: str) -> None:
    first = scene.daemon
    (tmp_path / "hot").mkdir()
    watch = {"id": "hot", "folder": "hot", "model": "cells", "results": "results"}
    if shared in ("folder", "results"):
        watch[shared] = str(first.hot if shared == "folder" else first.results)
    ended = start_in_vain(
        tmp_path,
        server={"listen": first.address if shared == "port" else "127.0.0.1:0"},
        journal={"folder": str(first.folder / "journal") if shared == "journal" else "journal"},
        watch=watch,
    )
    assert ended.returncode == 73, ended.stderr
    line = last_line(ended)
    assert f"process {first.pid} on {socket.gethostname()}, running since 20" in line
    expected = {"journal": first.folder / "journal", "port": first.address}
    assert str(expected.get(shared, watch.get(shared))) in line
    assert scene.client.server().name == "server"
