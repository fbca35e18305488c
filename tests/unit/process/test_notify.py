"""What the service manager is told, on sockets of both kinds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from segmentd.process.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket and how it is named to the service."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@segmentd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(10)
        yield sock, address


def test_messages_are_datagrams(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1500000"})
    assert notifier.watchdog_seconds == 1.5
    notifier.status("two\nlines")
    notifier.status("two lines")
    notifier.ready()
    notifier.ping()
    notifier.stopping()
    notifier.status("other")
    told = [sock.recv(4096).decode() for _ in range(5)]
    assert told == ["STATUS=two lines", "READY=1", "WATCHDOG=1", "STOPPING=1", "STATUS=other"]


def test_children_do_not_inherit_the_socket() -> None:
    environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    assert Notifier.from_environment(environ).watchdog_seconds is None  # meant for another process
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("microseconds", ["", "0", "soon"])
def test_without_a_watchdog_nobody_waits_for_pings(microseconds: str) -> None:
    environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": microseconds}
    assert Notifier.from_environment(environ).watchdog_seconds is None


def test_a_manager_that_does_not_listen_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier().ready()
    assert not caplog.records
    Notifier(str(tmp_path / "nobody")).ready()
    assert "cannot be told" in caplog.text
