"""What `segmentd.engine.cuda_device` uses of CuPy: numpy's arrays, kernels compiled for the processor."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from ..compute.host_kernels import HostKernels


class OutOfMemoryError(Exception):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class CompileError(Exception):
    pass


class TwinArray(np.ndarray):
    """An array of the device: numpy's, with the copies that CuPy's arrays have."""

    def set(self, array: np.ndarray, stream: Any) -> None:
        assert array.flags.c_contiguous and array.shape == self.shape and array.dtype == self.dtype
        self[...] = array

    def get(self, stream: Any, out: np.ndarray, blocking: bool) -> None:
        """As late as it may be: a result that is read before the stream is waited for is wrong."""
        assert not blocking
        copy = np.array(self)
        out[...] = 77
        stream.queue.append(lambda: np.copyto(out, copy))


class Stream:
    def __init__(self, non_blocking: bool) -> None:
        assert non_blocking
        self.queue: list[Any] = []
        self.waits = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def synchronize(self) -> None:
        self.waits += 1
        for task in self.queue:
            task()
        self.queue.clear()


class TwinCard(nullcontext[None]):
    attributes: ClassVar[dict[str, int]] = {
        "MultiProcessorCount": 24,
        "ClockRate": 2_400_000,
        "MemoryClockRate": 8_500_000,
        "GlobalMemoryBusWidth": 128,
    }


class Twin:
    """The namespace. `free` is the card's memory; `fault` is raised by the next kernel."""

    def __init__(self, kernels: HostKernels, free: int = 4 << 30) -> None:
        self.kernels = kernels
        self.free = free
        self.fault: Exception | None = None
        self.opened: list[int] = []
        self.streams: list[Stream] = []
        self.cuda = SimpleNamespace(
            Device=self._device,
            Stream=self._stream,
            alloc_pinned_memory=bytearray,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(
                memGetInfo=lambda: (self.free, 8 << 30),
                getDeviceCount=lambda: 2,
                getDeviceProperties=lambda number: {"name": b"twin %d" % number},
            ),
            compiler=SimpleNamespace(CompileException=CompileError),
            is_available=lambda: True,
        )

    def __getattr__(self, name: str) -> Any:
        """Operations on whole arrays are numpy's."""
        return getattr(np, name)

    def asnumpy(self, array: Any) -> np.ndarray:
        return np.array(array)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.full(shape, 123, dtype).view(TwinArray)

    def array(self, values: Any, dtype: Any) -> np.ndarray:
        return np.array(values, dtype, order="C").view(TwinArray)

    def asarray(self, values: Any) -> np.ndarray:
        return np.array(values).view(TwinArray)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)

    def RawModule(self, code: str, options: tuple[str, ...], backend: str) -> Any:  # noqa: N802
        assert "classify" in code and "--fmad=false" in options and backend == "nvrtc"
        return SimpleNamespace(compile=lambda: None, get_function=lambda name: self._kernel(name))

    def _kernel(self, name: str) -> Any:
        def start(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            if self.fault is not None:
                fault, self.fault = self.fault, None
                raise fault
            given = [None if isinstance(one, np.uint64) else one for one in arguments]
            self.kernels(name, grid[0] * block[0], *given)

        return start

    def _stream(self, non_blocking: bool) -> Stream:
        self.streams.append(Stream(non_blocking))
        return self.streams[-1]

    def _device(self, number: int) -> Any:
        self.opened.append(number)
        return TwinCard()
