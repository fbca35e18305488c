"""The examples in other languages compile from the published protos and give the daemon's labels."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ..unit import tiny_model
from .daemon import DaemonProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(400)]
IMAGE = np.random.default_rng(2).integers(0, 256, (60, 80)).repeat(3, 0).repeat(3, 1).astype(np.uint8)
JARS = Path("/usr/share/java")
JAVA_TOOLS = ("protoc", "grpc_java_plugin", "javac", "java")
LANGUAGES = {
    "java": all(map(shutil.which, JAVA_TOOLS)) and (JARS / "grpc-api.jar").exists(),
    "dotnet": shutil.which("dotnet") is not None,
}


@pytest.mark.parametrize(
    "language",
    [
        pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"needs gRPC's tools for {name}"))
        for name, there in LANGUAGES.items()
    ],
)
def test_an_example_does_what_its_page_says(language: str, repository: Path, tmp_path: Path) -> None:
    page = (repository / "clients" / "any-language.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (commands,) = (block for block in blocks if f"\n{language} " in block)
    for name in ("proto", "clients"):
        shutil.copytree(repository / name, tmp_path / name)
    frame, labels = tmp_path / "frame.raw", tmp_path / "labels.raw"
    IMAGE.tofile(frame)
    tiny_model.save(tmp_path / "models" / "cells.segmodel")
    daemon = DaemonProcess(tmp_path / "daemon", tmp_path / "models", [])
    daemon.open_inference = {"enabled": True}
    with daemon, daemon.client() as client:
        ours = {
            "127.0.0.1:50051": daemon.address,
            "nuclei frame.raw": f"cells {frame}",
            "1024 1376 UINT16": "180 240 UINT8",
            "labels.raw": str(labels),
            "/usr/bin/grpc_java_plugin": shutil.which("grpc_java_plugin") or "",
            "/usr/share/java": str(JARS),
        }
        for theirs, own in ours.items():
            commands = commands.replace(theirs, own)
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert "cells, version 1, on cpu: mean confidence" in done.stdout
        expected, _ = client.segment(IMAGE, "cells", min_confidence=50)
    np.testing.assert_array_equal(np.fromfile(labels, np.uint8).reshape(IMAGE.shape), expected)
