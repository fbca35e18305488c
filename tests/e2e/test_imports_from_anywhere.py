"""Hostile model packages sent to a daemon: what it starts, whom it calls, what it leaves behind."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from segmentctl import Client, DaemonError

from ..unit import tiny_networks as tiny
from ..unit.models import hostile
from .daemon import DaemonProcess
from .process import resident_mib
from .syscalls import read_trace, strace

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GROWTH_MIB = 200
DISK_BYTES = 64 << 20
_EXECUTED = re.compile(r'^execve\("(?P<program>[^"]*)", \[(?P<arguments>.*?)\]')


@pytest.mark.timeout(400)
def test_hostile_packages_start_nothing_call_nobody_and_leave_nothing(tmp_path: Path) -> None:
    place, models, sent, trace = (tmp_path / name for name in ("place", "models", "sent", "trace"))
    models.mkdir()
    with DaemonProcess(place, models, watches=[]) as daemon:  # what is compiled once is compiled
        with daemon.client() as client:
            _import(client, sent, tiny.czann(), "control")
        daemon.stop()
        daemon.prefix = strace(trace, "execve,connect,sendto,sendmsg")
        daemon.start()
        with daemon.client() as client:
            memory = resident_mib(daemon.pid)
            files = {path for path in tmp_path.rglob("*") if path.is_file()}
            disk = _bytes(tmp_path)
            for name, (package, words) in hostile.PACKAGES.items():
                with pytest.raises(DaemonError) as refused:
                    _import(client, sent, package, "hostile")
                assert refused.value.reason == "MODEL_UNUSABLE", name
                assert words in refused.value.message, name
                assert resident_mib(daemon.pid) - memory < GROWTH_MIB, name
                assert _bytes(tmp_path) - disk < DISK_BYTES, name
            assert {path for path in tmp_path.rglob("*") if path.is_file()} == files
            _import(client, sent, tiny.czann(), "control", overwrite=True)
            assert [model.name for model in client.models()] == ["models/control"]
        daemon.stop()
    calls = read_trace(trace)
    executed = [_EXECUTED.match(call.text) for call in calls if call.name == "execve" and call.result == 0]
    assert executed
    for match in executed:
        assert match is not None
        assert match["program"] == sys.executable
        assert '"segmentd"' in match["arguments"] or '"segmentd.workers"' in match["arguments"]
    beyond = [call.text for call in calls if call.name == "connect" and "AF_UNIX" not in call.text]
    assert beyond == []


def _import(client: Client, path: Path, package: bytes, identity: str, overwrite: bool = False) -> None:
    path.write_bytes(package)
    client.import_model(path, model_id=identity, overwrite=overwrite)


def _bytes(folder: Path) -> int:
    """Bytes of all files, those that come and go meanwhile left out."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total
