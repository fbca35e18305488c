"""What a process holds: memory, descriptors, threads (Linux's /proc)."""

from __future__ import annotations

import re
from pathlib import Path


def resident_mib(pid: int) -> float:
    """Resident memory in MiB."""
    return _number(pid, "VmRSS") / 1024


def threads(pid: int) -> int:
    """Number of threads."""
    return _number(pid, "Threads")


def descriptors(pid: int) -> int:
    """Number of open descriptors."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _number(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
