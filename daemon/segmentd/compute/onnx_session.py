"""A session of onnxruntime (extra `onnx`): on the processor, or on a card (extra `onnx-gpu`).

Cards: never run on one so far. Only a device's own process asks for one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.compute.on_card import OnCard
from segmentd.errors import Reason, SegmentdError

Floats = npt.NDArray[np.float32]

NAME = "onnxruntime"
ON_CPU = "CPUExecutionProvider"
ON_CARD = "CUDAExecutionProvider"


def card_options(card: OnCard) -> dict[str, str]:
    """What the provider for cards is told.

    Memory grows as it is asked for, up to a limit. Convolutions are chosen by a rule and not by timing, so
    that they are the same ones every time. No TF32: it keeps 10 of the 23 bits that the CPU has.
    """
    return {
        "device_id": str(card.number),
        "gpu_mem_limit": str(card.limit_bytes),
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }


def opened(onnx: bytes, threads: int, card: OnCard | None = None) -> Callable[[Floats], Floats]:
    """A function from tiles to scores, which uses all threads, or the card.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA. What onnxruntime raises over the network is passed on.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise SegmentdError(
            Reason.MISSING_EXTRA,
            "imported networks need onnxruntime; install it with: pip install 'segmentd[onnx]'",
            extra="onnx",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what matters comes as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [ON_CPU]
    if card is not None:
        _require_cards(onnxruntime)
        providers = [(ON_CARD, card_options(card)), ON_CPU]
    session = onnxruntime.InferenceSession(onnx, options, providers=providers, enable_fallback=0)
    if card is not None and session.get_providers()[0] != ON_CARD:
        raise _no_cards("its CUDA libraries cannot be loaded")
    name: str = session.get_inputs()[0].name

    def run(feed: Floats) -> Floats:
        (out,) = session.run(None, {name: feed})
        scores: Floats = out
        return scores

    return run


def _require_cards(onnxruntime: Any) -> None:
    """Load CUDA's libraries, which other packages bring; MISSING_EXTRA for an onnxruntime without cards."""
    if ON_CARD not in onnxruntime.get_available_providers():
        raise _no_cards("the one that is installed computes on the CPU only")
    onnxruntime.preload_dlls(msvc=False, directory="")


def _no_cards(why: str) -> SegmentdError:
    return SegmentdError(
        Reason.MISSING_EXTRA,
        f"networks on cards need another onnxruntime, {why}; replace it: pip uninstall onnxruntime, then "
        "pip install 'segmentd[onnx-gpu]'",
        extra="onnx-gpu",
    )
