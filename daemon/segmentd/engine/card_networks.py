"""Networks on a card through the libraries that run them, and what their errors mean for a lane.

The libraries are imported by the device's own process only, when the first network needs them. None of them
tells its errors apart by class: they are known by their words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segmentd.compute.fast_features import Floats
from segmentd.compute.on_card import OnCard
from segmentd.engine.array_models import ArrayModel, Compute
from segmentd.engine.device import DeviceLostError, DeviceOutOfMemoryError, DeviceRefusesError
from segmentd.errors import SegmentdError

# onnxruntime's arena, its limit, CUDA's own, TensorFlow's, cuDNN's and cuBLAS'.
OUT_OF_MEMORY = (
    "allocate memory",
    "smaller than requested bytes",
    "out of memory",
    "OOM when allocating",
    "ALLOC_FAILED",
)
# After these nothing works any more in the process.
BROKEN = ("CUDA failure", "CUDA error", "CUDA_ERROR", "cudaError", "CUDNN failure", "CUDNN_STATUS", "CUBLAS")
LONGEST_TEXT = 300


class CardNetworks:
    """The networks on one card."""

    def __init__(self) -> None:
        self._ready: dict[ArrayModel, Compute] = {}

    def load(self, model: ArrayModel, card: OnCard) -> None:
        """Bring a network. Raises DeviceOutOfMemoryError, DeviceRefusesError, DeviceLostError."""
        with understood(0):
            self._ready[model] = model.on_card(card)

    def evaluate(self, model: ArrayModel, values: Floats) -> Floats:
        """What a network makes of arrays; raises as `load`."""
        compute = self._ready.get(model)
        if compute is None:
            raise DeviceLostError("the model is not on the device")
        with understood(len(values)):
            return compute(values)

    def unload(self, model: ArrayModel) -> None:
        """Forget a network; onnxruntime gives its memory back, TensorFlow keeps it for the next one."""
        self._ready.pop(model, None)

    def clear(self) -> None:
        """Forget all."""
        self._ready.clear()


@contextmanager
def understood(batch: int) -> Iterator[None]:
    """Tell the errors of libraries as lanes understand them."""
    try:
        yield
    except Exception as error:  # they have no common class
        text = str(error.__cause__ or error)
        if any(words in text for words in OUT_OF_MEMORY):
            raise DeviceOutOfMemoryError(batch) from error
        if any(words in text for words in BROKEN):
            raise DeviceLostError(_first_line(text)) from error
        raise DeviceRefusesError(_first_line(_told(error))) from error


def _told(error: Exception) -> str:
    return error.message if isinstance(error, SegmentdError) else str(error)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["an error without words"])[0][:LONGEST_TEXT]
