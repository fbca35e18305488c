"""TensorFlow told on its first use in a process what it may compute on (extra `deep`; cards: `deep-gpu`)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segmentd.compute.on_card import OnCard
from segmentd.errors import Reason, SegmentdError

CPU = "/CPU:0"
CARD = "/GPU:0"
VISIBLE = "CUDA_VISIBLE_DEVICES"
MEBIBYTE = 1 << 20


def require_extra(what: str = "deep feature sets") -> None:
    """MISSING_EXTRA where TensorFlow is not installed, which `what` needs; imports nothing."""
    if any(importlib.util.find_spec(name) is None for name in ("tensorflow", "keras", "h5py")):
        raise SegmentdError(
            Reason.MISSING_EXTRA,
            f"{what} need TensorFlow; install it with: pip install 'segmentd[deep]'",
            extra="deep",
        )


def told(threads: int, card: OnCard | None) -> tuple[Any, str]:
    """TensorFlow, and the device to compute on; what the first call in a process says is for all."""
    return (on_the_processor(threads), CPU) if card is None else (on_the_card(card), CARD)


def on_the_processor(threads: int) -> Any:
    """TensorFlow on `threads` threads, one for each call; it sees no card, and does not touch any driver."""
    with _cards_hidden():
        tensorflow = _imported()
        tensorflow.config.list_physical_devices()  # looked for once in a process
    try:
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:  # it runs already, as it was told then
        return tensorflow
    return tensorflow


def on_the_card(card: OnCard) -> Any:
    """TensorFlow on a card, for this process: the same numbers every time, no TF32, memory up to the limit.

    Never run on a card so far.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA where it finds no card.
    """
    # With a limit, growth can only be asked for in this way.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    tensorflow = _imported()
    config = tensorflow.config
    cards = {one.name.rpartition(":")[2]: one for one in config.list_physical_devices("GPU")}
    wanted = cards.get(str(card.number))
    if wanted is None:
        raise SegmentdError(
            Reason.MISSING_EXTRA,
            f"this TensorFlow finds no card {card.number}; replace it by one with CUDA: pip uninstall "
            "tensorflow-cpu, then pip install 'segmentd[deep-gpu]'",
            extra="deep-gpu",
        )
    try:
        config.set_visible_devices([wanted], "GPU")
        limit = config.LogicalDeviceConfiguration(memory_limit=max(1, card.limit_bytes // MEBIBYTE))
        config.set_logical_device_configuration(wanted, [limit])
    except RuntimeError:  # it runs already, as it was told then
        return tensorflow
    config.experimental.enable_tensor_float_32_execution(False)
    config.experimental.enable_op_determinism()
    return tensorflow


@contextmanager
def _cards_hidden() -> Iterator[None]:
    """No card for who looks for them now."""
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = "-1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before


def _imported() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's Keras uses otherwise
    import tensorflow

    return tensorflow
