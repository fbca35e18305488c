"""The CUDA kernels compiled for the processor, by the C++ compiler of the machine."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from segmentd.compute.cuda.source import KERNELS, source

COMPILER = shutil.which("g++") or shutil.which("clang++")
_SCALARS = {np.int32: ctypes.c_int32, np.int64: ctypes.c_int64, np.float32: ctypes.c_float}


class HostKernels:
    """Starts kernels as `segmentd.compute.cuda.tiles.Launch` says; counts how often."""

    def __init__(self, folder: Path) -> None:
        assert COMPILER is not None
        text, library = folder / "kernels.cpp", folder / "kernels.so"
        text.write_text(source(), encoding="utf-8")
        options = ("-O2", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror")
        subprocess.run([COMPILER, *options, text, "-o", library, "-lm"], check=True)
        loaded = ctypes.CDLL(str(library))
        self._functions = {name: getattr(loaded, name) for name in KERNELS}
        self.started = 0

    def __call__(self, kernel: str, count: int, *arguments: Any) -> None:
        assert count > 0
        self.started += 1
        self._functions[kernel](*map(_argument, arguments))


def _argument(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return _SCALARS[type(value)](value.item())
