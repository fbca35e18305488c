"""What a device's process does in tests: it opens a card made of numpy and kernels for the processor."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from segmentd.engine import device_child
from segmentd.engine.cuda_device import CudaDevice

from ..compute.host_kernels import HostKernels
from .numpy_twin import CUDARuntimeError, Twin


class FailingTwin(Twin):
    """Aborts, hangs or breaks its context with tile number `after`."""

    def __init__(self, kernels: HostKernels, fault: str, after: int) -> None:
        super().__init__(kernels)
        self._kind, self._left = fault, after

    def _kernel(self, name: str) -> Any:
        self._left -= name == "classify"
        if self._left:
            return super()._kernel(name)
        if self._kind == "abort":
            os.abort()
        if self._kind == "hang":
            time.sleep(3600)
        raise CUDARuntimeError(self._kind)


@device_child.answered
def open_twin(arguments: dict[str, Any], fds: list[int]) -> None:
    kernels = HostKernels(Path(arguments["folder"]))
    twin = FailingTwin(kernels, arguments["fault"], arguments["after"])
    device_child.use(CudaDevice(twin, 0, "twin 0"))  # type: ignore[arg-type]
