"""The first touch of a driver: whatever happens to the child, the parent gets an answer in words."""

from __future__ import annotations

import pytest

from segmentd.process import gpu_probe
from segmentd.process.gpu_probe import Card


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        ("import os; os.abort()", "the driver ended the process that asked it, with signal 6"),
        ("raise RuntimeError('no kernel image')", "CuPy fails: RuntimeError: no kernel image"),
        ("print('[]')", "CuPy is installed but finds no card"),
        ("import time; time.sleep(60)", "the driver did not answer for 1 s; restart the machine"),
    ],
)
def test_a_child_that_fails(child: str, reason: str) -> None:
    found = gpu_probe.ask(child, 1.0 if "sleep" in child else 60.0)
    assert (found.cards, found.reason[: len(reason)]) == ((), reason)


def test_a_card_that_is_there() -> None:
    child = 'print("a driver may print"); print(\'[{"name": "H", "free": 3, "total": 4}]\')'
    assert gpu_probe.ask(child, 60.0).cards == (Card("H", 3, 4),)


def test_without_cupy_no_child_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_probe.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(gpu_probe.subprocess, "run", None)
    assert "extra `gpu`" in gpu_probe.probe("exit").reason
