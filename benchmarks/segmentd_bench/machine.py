"""What the figures were measured on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segmentd import __version__
from segmentd.engine.lane import processor_name
from segmentd.settings.values import usable_cores

LIBRARIES = ("numpy", "scipy", "scikit-learn", "opencv-python-headless", "numba", "llvmlite", "grpcio")


def describe() -> dict[str, Any]:
    """Processor, cores, memory and versions, as plain JSON values."""
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory_gib": round(_memory_kib() / 2**20, 1),
        "instruction_sets": instruction_sets(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "segmentd": __version__,
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def instruction_sets() -> list[str]:
    """The vector instruction sets that matter here, of those the processor has."""
    wanted = ("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "asimd")
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [
        line.partition(":")[2].split() for line in text.splitlines() if line.startswith(("flags", "Features"))
    ]
    return [name for name in wanted if lines and name in lines[0]]


def _memory_kib() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("MemTotal")), 0)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
