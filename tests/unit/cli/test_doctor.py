"""`segmentd doctor`: says what works, finds what does not, and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segmentd.cli.main import app
from segmentd.engine import simulated_device


def configuration(folder: Path, text: str = "") -> Path:
    path = folder / "s.toml"
    path.write_text(f'[models]\nfolder = "models"\n[journal]\nfolder = "journal"\n{text}', encoding="utf-8")
    return path


def run(config: Path) -> tuple[int, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(app, ["doctor", "--json", "--config", str(config)])
    return done.exit_code, {check["about"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_machine_on_which_all_works(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["doctor", "--config", str(configuration(tmp_path, "[device]\nthreads = 2"))]
    )
    assert done.exit_code == 0, done.output
    for words in (
        "kernel ",
        "GiB are free",
        "extra onnx",
        "test on cpu, 2 threads",
        "network on cpu, 2",
        "megapixels a second",
    ):
        assert words in done.stdout
    assert done.stdout.splitlines()[-1].startswith("All that is needed works")
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]


def test_what_does_not_work_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(simulated_device.VARIABLE, "lost_after:0")
    (tmp_path / "file").touch()
    watches = '[[watch]]\nid = "{0}"\nfolder = "{1}"\nmodel = "m"\nresults = "{2}"\n'
    text = watches.format("gone", "nowhere", "out") + watches.format("odd", ".", "file/out")
    code, checks = run(configuration(tmp_path, text))
    assert code == 1
    failed = {about for about, check in checks.items() if check["state"] == "failed"}
    assert failed == {"watch gone", "results of odd", "test on simulated:0", "network on simulated:0"}
    assert "nowhere is not there" in checks["watch gone"]["text"]
    assert (
        checks["test on cpu, 1 thread" if "test on cpu, 1 thread" in checks else "watch odd"]["state"] == "ok"
    )
    assert all(checks[about]["advice"] for about in failed)


def test_a_bad_configuration_exits_78(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "segmentd", "doctor", "--config", configuration(tmp_path, "x = 1")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78, done.stderr
