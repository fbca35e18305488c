"""Commands of segmentd under the client's name: the same words, the same exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(program: str, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_verify_is_passed_on(tmp_path: Path) -> None:
    arguments = ("verify", "nosuch", "--models", str(tmp_path))
    answer = run("segmentctl", *arguments)
    assert answer == run("segmentd", *arguments)
    assert answer[0] == 1
    assert "nosuch" in answer[2]
