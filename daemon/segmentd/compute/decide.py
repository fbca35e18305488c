"""Class scores to labels and confidence, and the minimum confidence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def decide(scores: npt.NDArray[np.floating]) -> tuple[Bytes, Bytes]:
    """Label and confidence of every pixel.

    Parameters
    ----------
    scores : float array (K, h, w)
        Class scores; K at most 255.

    Returns
    -------
    labels : uint8 array (h, w)
        1..K, the first class of highest score.
    confidence : uint8 array (h, w)
        That score in percent, rounded half to even.
    """
    winner = scores.argmax(axis=0)
    best = np.take_along_axis(scores, winner[None], axis=0)[0]
    return (winner + 1).astype(np.uint8), np.rint(100.0 * best).astype(np.uint8)


def apply_minimum_confidence(labels: Bytes, confidence: Bytes, minimum_percent: int) -> Bytes:
    """Labels where the confidence is at least `minimum_percent`, else 0 (unlabelled)."""
    if minimum_percent <= 0:
        return labels
    return np.where(confidence >= minimum_percent, labels, np.uint8(0))
