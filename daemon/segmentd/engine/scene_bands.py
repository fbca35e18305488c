"""A scene smaller than the largest of its image is computed at its own size, and filled up to be written.

What is filled up, to the right and below, is no pixel: label 0, confidence 0, counted nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segmentd.engine.segmenter import BandResult
from segmentd.imagefile import TILE

Size = tuple[int, int]


def filled_up(band: BandResult, scene: Size, frame: Size) -> Iterator[BandResult]:
    """Fill a band of a scene up to the width of the frame, and the last one to its height.

    Parameters
    ----------
    band : BandResult
        Some rows of the scene: a multiple of `imagefile.TILE`, or all that are left.
    scene, frame : (int, int)
        Height and width of the scene, and of the planes that are written.

    Returns
    -------
    iterator of BandResult
        The band; after the last of a scene that is less high, a second one of what is missing, which takes no
        memory.
    """
    if scene == frame:
        yield band
        return
    rows, width = band.labels.shape[0], frame[1]
    end = band.first_row + rows
    if end == scene[0]:
        end = min(frame[0], band.first_row + -(-rows // TILE) * TILE)
    size = end - band.first_row
    yield replace(
        band,
        labels=_filled(band.labels, size, width),
        confidence=_filled(band.confidence, size, width),
        pixels=_filled(band.pixels, size, width),
        image=None if band.image is None else _filled(band.image, size, width),
    )
    if band.first_row + rows == scene[0] and end < frame[0]:
        size = frame[0] - end
        yield replace(
            band,
            first_row=end,
            labels=_nothing(band.labels, size, width),
            confidence=_nothing(band.confidence, size, width),
            pixels=_nothing(band.pixels, size, width),
            image=None if band.image is None else _nothing(band.image, size, width),
            masked_pixels=0,
            compute_seconds=0.0,
        )


def _filled(values: npt.NDArray[Any], rows: int, width: int) -> npt.NDArray[Any]:
    """Copy (..., h, w) to the top left of zeros (..., rows, width)."""
    out = np.zeros((*values.shape[:-2], rows, width), values.dtype)
    out[..., : values.shape[-2], : values.shape[-1]] = values
    return out


def _nothing(like: npt.NDArray[Any], rows: int, width: int) -> npt.NDArray[Any]:
    return np.broadcast_to(np.zeros((), like.dtype), (*like.shape[:-2], rows, width))
