"""The rules of the code base, checked by machine: layers, style, types, size, the API's own lint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HEAVY_PACKAGES = ("cv2", "numba", "scipy", "skimage", "sklearn", "tensorflow")
LONGEST_MODULE = 300
HAND_WRITTEN = ("benchmarks", "clients", "daemon", "proto")

HELP_OF_EVERY_COMMAND = """
import json, sys
import typer
from typer.testing import CliRunner
from {module} import app

command = typer.main.get_command(app)
runner = CliRunner()
codes = {{name: runner.invoke(app, [name, "--help"]).exit_code for name in ["", *command.commands] if name}}
print(json.dumps({{"codes": codes, "modules": sorted({{name.partition(".")[0] for name in sys.modules}})}}))
"""


def run_tool(name: str, *arguments: str, cwd: Path) -> None:
    """Run a tool of this environment; what it prints is the failure's message."""
    tool = Path(sysconfig.get_path("scripts")) / name
    done = subprocess.run([tool, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name} {' '.join(arguments)}\n{done.stdout}{done.stderr}"


def test_imports_follow_the_layers(repository: Path) -> None:
    run_tool("lint-imports", "--no-cache", cwd=repository)


@pytest.mark.timeout(300)
def test_types_are_strict(repository: Path) -> None:
    run_tool("mypy", cwd=repository)


def test_style(repository: Path) -> None:
    run_tool("ruff", "check", cwd=repository)


def test_format(repository: Path) -> None:
    run_tool("ruff", "format", "--check", cwd=repository)


def test_modules_are_short(repository: Path) -> None:
    modules = [path for folder in HAND_WRITTEN for path in (repository / folder).rglob("*.py")]
    lengths = {
        str(path.relative_to(repository)): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules
        if "_pb2" not in path.name
    }
    assert "daemon/segmentd/pipeline.py" in lengths
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_proto_files_pass_buf_lint(proto_workspace: Path) -> None:
    run_tool("buf", "lint", "--path", "segmentd/v1", cwd=proto_workspace)


@pytest.mark.parametrize("module", ["segmentd.cli.main", "segmentctl.cli", "segmentd_bench.cli"])
def test_help_of_every_command_imports_nothing_heavy(module: str) -> None:
    source = HELP_OF_EVERY_COMMAND.format(module=module)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["codes"]
    assert set(seen["codes"].values()) == {0}
    assert set(HEAVY_PACKAGES).isdisjoint(seen["modules"])


def test_a_daemon_imports_nothing_of_cards_and_training() -> None:
    source = """
import json, sys
import segmentd.daemon
from segmentd.engine.choice import make_lane
from segmentd.settings import DeviceSettings

make_lane(DeviceSettings(threads=1)).close()
print(json.dumps(sorted(sys.modules)))
"""
    environment = {name: value for name, value in os.environ.items() if name != "SEGMENTD_FAKE_DEVICE"}
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, env=environment
    )
    modules = set(json.loads(done.stdout))
    not_needed = {"cupy", "cupyx", "cucim", "nvforest", "cuml", "tensorflow", "sklearn", "scipy.ndimage"}
    ours = {name for name in modules if name.startswith(("segmentd.engine.cuda", "segmentd.compute.cuda"))}
    assert ours | modules & {*not_needed, "segmentd.engine.selftest"} == set()
