"""The service files: systemd accepts them, they shut the daemon in, and the sample configuration is sound."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segmentd.settings import load

# Exposure times ten, as `systemd-analyze security` wants it: 1.1 on the CPU, 1.5 with a GPU.
CPU_GATE, GPU_GATE = 11, 15

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, which is not installed"
)


@pytest.fixture
def units(repository: Path, tmp_path: Path) -> Path:
    """A copy of the service whose program exists on this machine."""
    text = (repository / "systemd" / "segmentd.service").read_text()
    program = "/opt/segmentd/bin/segmentd"
    assert f"ExecStart={program} run --config " in text
    (tmp_path / "segmentd.service").write_text(text.replace(program, sys.executable))
    return tmp_path


def with_gpu(units: Path, repository: Path) -> None:
    folder = units / "segmentd.service.d"
    folder.mkdir()
    shutil.copy(repository / "systemd" / "gpu.conf", folder)


def analyze(units: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments, "./segmentd.service"],
        cwd=units,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@needs_systemd
@pytest.mark.parametrize(("gpu", "gate"), [(False, CPU_GATE), (True, GPU_GATE)])
def test_systemd_accepts_the_service_and_finds_it_shut_in(
    units: Path, repository: Path, gpu: bool, gate: int
) -> None:
    if gpu:
        with_gpu(units, repository)
    assert analyze(units, "verify", "--man=no") == ""
    analyze(units, "security", "--offline=true", f"--threshold={gate}")


def test_the_service_promises_what_the_daemon_keeps(repository: Path) -> None:
    text = (repository / "systemd" / "segmentd.service").read_text()
    keys = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    assert keys["Type"] == "notify"
    assert keys["RestartPreventExitStatus"] == "73 78"
    assert int(keys["TimeoutStopSec"]) > 10
    assert keys["Environment"].startswith("NUMBA_CACHE_DIR=%C/")
    assert keys["MemoryDenyWriteExecute"] == "no"
    users = (repository / "systemd" / "segmentd.sysusers").read_text()
    assert f"\nu {keys['User']} " in users


@pytest.mark.parametrize("with_watch", [False, True])
def test_the_sample_configuration_is_sound(repository: Path, tmp_path: Path, with_watch: bool) -> None:
    text = (repository / "systemd" / "segmentd.toml").read_text()
    if with_watch:
        text = re.sub(r"^#(?=\[\[watch|\w+ = )", "", text, flags=re.MULTILINE)
    path = tmp_path / "segmentd.toml"
    path.write_text(text)
    settings = load(path)
    state = "/var/lib/segmentd"
    assert all(str(folder).startswith(state) for folder in (settings.models.folder, settings.journal.folder))
    specs = settings.watch_specs()
    assert [str(spec.results) for spec in specs] == (["/data/results"] if with_watch else [])
    service = (repository / "systemd" / "segmentd.service").read_text()
    for spec in specs:
        assert f"\nReadOnlyPaths=-{spec.folder}\n" in service
        assert f"\nReadWritePaths=-{spec.results}\n" in service
