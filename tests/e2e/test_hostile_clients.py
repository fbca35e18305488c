"""Hostile clients beside a good one, which does not notice, and a daemon that does not grow."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from segmentctl import Client

from . import attackers
from .daemon import DaemonProcess, environment, wait_until
from .process import descriptors, resident_mib

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GROWTH_MIB = 50
P99_SECONDS = 0.5
HANDSHAKE_SECONDS = 10


@pytest.mark.timeout(400)
def test_a_good_client_does_not_notice_hostile_ones(blobs_model: Path, tmp_path: Path) -> None:
    keys = {"unix_socket": "run/api.sock", "token_file": "tokens.toml"}
    with DaemonProcess(tmp_path, blobs_model.parent, watches=[], server=keys) as daemon:
        path = tmp_path / "run" / "api.sock"
        tokens = tomllib.loads((tmp_path / "tokens.toml").read_text())
        with Client(daemon.address, token=tokens["submit"][0], timeout=60) as client:
            client.load_model("blobs")
            alone = [_seconds(client) for _ in range(200)]
            memory, files = resident_mib(daemon.pid), descriptors(daemon.pid)
            command = [sys.executable, str(attackers.__file__), path, tokens["read"][0]]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path)
            ) as hostile:
                seconds, grown = [], 0.0
                while hostile.poll() is None:
                    seconds.append(_seconds(client))
                    grown = max(grown, resident_mib(daemon.pid) - memory)
                    time.sleep(0.01)
                assert hostile.stdout is not None
                told = hostile.stdout.read().split()
            assert hostile.returncode == 0
            assert told == [attack.__name__ for attack in attackers.ATTACKS]
            measured = (
                f"p99 {_p99(seconds):.3f} s of {len(seconds)}, alone {_p99(alone):.3f} s; +{grown:.0f} MiB"
            )
            print(measured)
            assert len(seconds) > 200
            assert _p99(seconds) < P99_SECONDS, measured
            assert grown < GROWTH_MIB, measured
            wait_until(lambda: descriptors(daemon.pid) <= files + 5, "the connections have ended")
        with Client(f"unix:{path}", token=tokens["read"][0], timeout=60) as late:
            assert late.server().subscriber_count == 0
        log = daemon.log_path.read_text()
        assert "Traceback" not in log
        assert len(log) < 1 << 20


@pytest.mark.timeout(200)
def test_connections_are_counted_and_silent_ones_ended(blobs_model: Path, tmp_path: Path) -> None:
    keys = {"listen": "", "unix_socket": "run/api.sock"}
    with DaemonProcess(tmp_path, blobs_model.parent, watches=[], server=keys) as daemon:
        path = str(tmp_path / "run" / "api.sock")
        with daemon.client() as client:
            assert client.server().version
            began = time.monotonic()
            held = [attackers.connected(path) for _ in range(attackers.TOO_MANY_CONNECTIONS)]
            wait_until(lambda: sum(map(_ended, held)) >= 101, "those beyond 1,200 were not taken")
            assert sum(map(_ended, held)) < 200 or time.monotonic() - began > HANDSHAKE_SECONDS
            assert client.server().version
            wait_until(lambda: all(map(_ended, held)), "silent ones are ended", seconds=90)
            for sock in held:
                sock.close()
        with daemon.client() as late:
            assert late.server().version


def _seconds(client: Client) -> float:
    began = time.perf_counter()
    assert client.server().version
    return time.perf_counter() - began


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.99 * len(seconds))]


def _ended(sock: object) -> bool:
    """Whether the other side has closed the connection; takes what it has said so far."""
    assert isinstance(sock, attackers.socket.socket)
    sock.setblocking(False)
    try:
        while sock.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
