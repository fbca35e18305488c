"""Every call of CuPy that we make, against the signatures of the installed wheel; needs no card."""

from __future__ import annotations

import inspect
import re
import warnings
from functools import reduce
from typing import Any

import pytest

from segmentd.engine.cuda_check import find_cards

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about CUDA that is not installed
    cupy = pytest.importorskip("cupy", reason="needs the extra gpu or gpu13: CuPy")
pytestmark = pytest.mark.gpu_wheels

# Positional arguments, and the names of keyword arguments.
CALLS: dict[str, tuple[int, tuple[str, ...]]] = {
    "array": (2, ()),
    "asarray": (1, ()),
    "empty": (2, ()),
    "RawModule": (0, ("code", "options", "backend")),
    "RawModule.compile": (1, ()),
    "RawModule.get_function": (2, ()),
    "RawKernel.__call__": (4, ()),
    "ndarray.set": (2, ("stream",)),
    "ndarray.get": (1, ("stream", "out", "blocking")),
    "cuda.Device": (1, ()),
    "cuda.Stream": (0, ("non_blocking",)),
    "cuda.Stream.synchronize": (1, ()),
    "cuda.alloc_pinned_memory": (1, ()),
    "cuda.is_available": (0, ()),
    "cuda.runtime.getDeviceCount": (0, ()),
    "cuda.runtime.getDeviceProperties": (1, ()),
    "cuda.runtime.memGetInfo": (0, ()),
    "get_default_memory_pool": (0, ()),
    "cuda.MemoryPool.free_bytes": (1, ()),
    "cuda.MemoryPool.free_all_blocks": (1, ()),
}


def parameters(function: Any) -> list[str]:
    """Names of the parameters; compiled functions have them in the first line of their documentation."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        described = re.search(r"\((.*?)\)(?: ->.*)?$", function.__doc__.splitlines()[0])
        assert described is not None
        given = [part.split("=")[0].split()[-1] for part in described[1].split(",") if part.strip(" *")]
        return [name.lstrip("*") for name in given]


@pytest.mark.parametrize("name", CALLS)
def test_the_call_exists(name: str) -> None:
    positional, keywords = CALLS[name]
    found = parameters(reduce(getattr, name.split("."), cupy))
    assert len(found) >= positional + len(keywords)
    assert set(keywords) <= set(found[positional:])


def test_errors_are_where_they_are_caught() -> None:
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, Exception)
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert issubclass(cupy.cuda.driver.CUDADriverError, RuntimeError)
    assert issubclass(cupy.cuda.compiler.CompileException, Exception)


def test_the_probe_gets_an_answer() -> None:
    found = find_cards()
    assert found.cards or found.reason
