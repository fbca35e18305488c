"""What the kernel tells of other processes, and that not being told is no failure."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from segmentd.process import holder


def test_a_process_has_a_start(tmp_path: Path) -> None:
    about = holder.process(os.getpid())
    started = datetime.fromisoformat(about.since)
    assert 0 <= time.time() - started.timestamp() < 3 * 3600
    assert str(about) == f"process {os.getpid()} on {about.host}, running since {about.since}"


def test_what_is_hidden_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holder, "PROC", tmp_path)
    about = holder.process(7)
    assert (about.pid, about.since) == ("7", "")
    assert set(about.metadata()) == {"pid", "host"}
    assert holder.of_lock(tmp_path.stat()) is None
    assert holder.of_port(80) is None
    assert str(holder.Holder()) == "a process that cannot be seen from here"


def test_the_lock_of_the_right_device_counts_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    lines = [
        f"1: FLOCK  ADVISORY  WRITE 11 ff:ff:{status.st_ino} 0 EOF",
        f"2: POSIX  ADVISORY  WRITE 12 {device}:{status.st_ino} 0 EOF",
        f"3: FLOCK  ADVISORY  WRITE 13 {device}:{status.st_ino} 0 EOF",
        f"3: -> FLOCK  ADVISORY  WRITE 14 {device}:{status.st_ino} 0 EOF",
        f"4: FLOCK  ADVISORY  WRITE 15 {device}:{status.st_ino}1 0 EOF",
    ]
    monkeypatch.setattr(holder, "PROC", tmp_path)
    (tmp_path / "locks").write_text("\n".join(lines))
    assert holder.of_lock(status) == 13
    (tmp_path / "locks").write_text(lines[0])
    assert holder.of_lock(status) == 11
