"""Freed memory is kept: messages of a mebibyte do not fault in fresh pages again and again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segmentd.process import freed_memory

SCRIPT = """
import resource
from segmentd.process.freed_memory import keep_freed_memory
{before}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    return [b"x" * (1 << 20) for _ in range(6)]
use()
start = faults()
for _ in range(40):
    use()
print(faults() - start)
"""


def page_faults(before: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_memory_is_used_again_instead_of_fresh_pages() -> None:
    assert page_faults("keep_freed_memory()") < page_faults("") / 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())
    freed_memory.keep_freed_memory()
