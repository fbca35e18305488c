"""Configurations that cannot be run: exit codes and a sentence that says what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from .daemon import DaemonProcess, environment, run, toml

pytestmark = pytest.mark.e2e


def start_in_vain(folder: Path, **tables: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run a daemon that must end by itself."""
    folder.mkdir(exist_ok=True)
    config = folder / "config.toml"
    watch = tables.pop("watch", None)
    text = "".join(f"[{name}]\n{toml(table)}" for name, table in tables.items())
    config.write_text(text + (f"[[watch]]\n{toml(watch)}" if watch else ""), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "segmentd", "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(folder),
        check=False,
    )


def last_line(ended: subprocess.CompletedProcess[str]) -> str:
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.stderr.strip().splitlines()[-1]


def test_a_watch_with_a_model_that_does_not_exist_exits_78(tmp_path: Path) -> None:
    (tmp_path / "hot").mkdir()
    ended = start_in_vain(
        tmp_path,
        server={"listen": "127.0.0.1:0"},
        journal={"folder": "journal"},
        models={"folder": "models"},
        watch={"id": "hot", "folder": "hot", "model": "cells"},
    )
    assert ended.returncode == 78, ended.stderr
    assert "watch[0].model" in last_line(ended)
    assert "cells" in last_line(ended)
    assert "segmentd train" in last_line(ended)


def test_check_config_names_key_value_and_rule(tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text(
        """
        [server]
        listen = "0.0.0.0:50051"
        lissten = 1
        [device]
        threads = 0
        [[watch]]
        id = "Hot Folder"
        folder = "hot"
        model = "cells"
        outputs = ["labels", "pictures"]
        tile = 8
        """,
        encoding="utf-8",
    )
    lines = run("check-config", config, code=78).stderr.splitlines()
    for key, value, rule in (
        ("server.listen", '"0.0.0.0:50051"', "TLS"),
        ("server.lissten", "1", "did you mean listen"),
        ("device.threads", "0", ">= 1"),
        ("watch[0].id", '"Hot Folder"', "lower-case"),
        ("watch[0].outputs[1]", '"pictures"', "must be one of"),
        ("watch[0].tile", "8", ">= 16"),
    ):
        assert any(line.startswith(f"{key} = {value}: ") and rule in line for line in lines), (key, lines)
    assert len(lines) == 6
    ended = subprocess.run(
        [sys.executable, "-m", "segmentd", "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr.splitlines()) == (78, lines)


def test_check_config_shows_what_a_good_one_means(place: Callable[..., DaemonProcess]) -> None:
    daemon = place(min_confidence=55)
    shown = run("check-config", daemon.write_config()).stdout
    for text in ("[server]", "[[watch]]", str(daemon.hot), str(daemon.results), "min_confidence"):
        assert text in shown
