"""Packets of features to labels and confidence: everything is checked here, before addresses are used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segmentd.compute.decide import decide
from segmentd.compute.forest import ForestArrays
from segmentd.compute.packets import kernels, plain, x86
from segmentd.compute.packets.choice import Kernel, can_be_compiled
from segmentd.compute.packets.job import Scratch
from segmentd.compute.packets.layout import (
    PACKET_EDGE,
    PACKET_PIXELS,
    PLANE_BYTES,
    PacketForest,
    compile_forest,
)

Bytes = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]

_ALIGNMENT = 64
_RUN = {
    Kernel.AVX512: kernels.run_avx512,
    Kernel.AVX2: kernels.run_avx2,
    Kernel.SIMD: kernels.run_simd,
}


def classify(
    forest: PacketForest,
    features: Features,
    labels: Bytes,
    confidence: Bytes,
    scratch: Scratch,
    kernel: Kernel,
) -> int:
    """Label and confidence of every pixel of a tile, as `decide(predict(...))` gives them.

    Releases the GIL; a `Scratch` must not be used by two threads at once.

    Parameters
    ----------
    forest : PacketForest
        From `compile_forest`.
    features : float32 array (packets, planes, 64)
        C-contiguous, beginning at a multiple of 64 bytes. A packet is 8 x 8 pixels, row by row; packets
        cover the tile row by row. Pixels beyond the tile's edge can hold any numbers.
    labels, confidence : uint8 arrays (h, w)
        Filled: 1..K, the first class of highest score; that score in percent, rounded half to even. The
        pixels of a row must be next to each other; rows may be apart.
    scratch : Scratch
        Working memory.
    kernel : Kernel
        From `choose_kernel`.

    Returns
    -------
    int
        How many times a packet met an inner node, by which the time goes; 0 with the plain kernel.

    Raises
    ------
    ValueError
        An array has the wrong shape, type or layout, or the processor cannot run the kernel.
    """
    height, width = labels.shape
    _check_features(forest, features, height, width)
    for name, array in (("labels", labels), ("confidence", confidence)):
        if array.dtype != np.uint8 or array.shape != (height, width) or not array.flags.writeable:
            raise ValueError(f"{name} must be a writeable uint8 array of {height} x {width}")
        if (width > 1 and array.strides[1] != 1) or (height > 1 and array.strides[0] < width):
            raise ValueError(f"the pixels of a row of {name} must be next to each other")
    if kernel is Kernel.PLAIN:
        labels[:], confidence[:] = decide(_plain_scores(forest, features, height, width))
        return 0
    job = _job(forest, features, height, width, scratch, kernel)
    job["scores"] = 0
    job["labels"], job["label_pitch"] = labels.ctypes.data, labels.strides[0]
    job["confidence"], job["confidence_pitch"] = confidence.ctypes.data, confidence.strides[0]
    return int(_RUN[kernel](job))


def scores(
    forest: PacketForest, features: Features, height: int, width: int, scratch: Scratch, kernel: Kernel
) -> npt.NDArray[np.float64]:
    """Class scores of every pixel of a tile, as `forest.predict` gives them: float64 (K, h, w).

    Parameters as for `classify`; `height` and `width` are the tile's, in pixels.
    """
    _check_features(forest, features, height, width)
    if kernel is Kernel.PLAIN:
        return _plain_scores(forest, features, height, width)
    found = np.empty((forest.class_count, height, width))
    job = _job(forest, features, height, width, scratch, kernel)
    job["labels"], job["scores"] = 0, found.ctypes.data
    _RUN[kernel](job)
    return found


def warm_up(kernel: Kernel) -> None:
    """Compile what `classify` runs, or load it from disk, so that the first tile need not wait for it."""
    stump = ForestArrays(
        feature=np.array([0, -1, -1], np.int32),
        threshold=np.zeros(3),
        left=np.array([1, -1, -1], np.int32),
        right=np.array([2, -1, -1], np.int32),
        value=np.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]),
        roots=np.zeros(1, np.int32),
        feature_count=1,
    )
    memory = np.zeros(2 * PLANE_BYTES, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    features = memory[start : start + PLANE_BYTES].view(np.float32).reshape(1, 1, PACKET_PIXELS)
    labels, confidence = np.zeros((2, 1, 1), np.uint8)
    classify(compile_forest(stump, np.zeros(1, np.int32)), features, labels, confidence, Scratch(), kernel)


def _check_features(forest: PacketForest, features: Features, height: int, width: int) -> None:
    packets = -(-height // PACKET_EDGE) * -(-width // PACKET_EDGE)
    if features.ndim != 3 or features.shape[0] != packets or features.shape[2] != PACKET_PIXELS:
        raise ValueError(
            f"features of shape {features.shape}: {height} x {width} pixels are {packets} packets"
        )
    if features.shape[1] < forest.plane_count:
        raise ValueError(f"features have {features.shape[1]} planes, the forest takes {forest.plane_count}")
    if features.dtype != np.float32 or not features.flags.c_contiguous or features.ctypes.data % _ALIGNMENT:
        raise ValueError(f"features must be contiguous float32 at a multiple of {_ALIGNMENT} bytes")


def _job(
    forest: PacketForest, features: Features, height: int, width: int, scratch: Scratch, kernel: Kernel
) -> npt.NDArray[np.void]:
    if not can_be_compiled(kernel):
        raise ValueError(f"this processor cannot run the kernel {kernel}; ask `choose_kernel` for one")
    job = scratch.job(forest)
    job["features"] = features.ctypes.data
    job["packets"], job["packet_bytes"] = features.shape[0], features.shape[1] * PLANE_BYTES
    job["height"], job["width"], job["columns"] = height, width, -(-width // PACKET_EDGE)
    packs = kernel is Kernel.AVX2
    job["row_step"] = x86.AVX2_ROW_STEP if packs else PACKET_EDGE
    job["run_step"] = x86.AVX2_RUN_STEP if packs else PACKET_EDGE // 2
    return job


def _plain_scores(
    forest: PacketForest, features: Features, height: int, width: int
) -> npt.NDArray[np.float64]:
    found = np.zeros((forest.class_count, height, width))
    values = forest.leaf_values
    if forest.pure:  # leaf numbers are class * vote_places + tree
        values = np.repeat(np.eye(forest.class_count), forest.vote_places, axis=0)
    plain.score_pixels(features, forest.nodes, forest.roots, values, found)
    return found
