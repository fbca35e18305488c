"""Normalisation of a plane: what is subtracted and divided before features are computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

METHODS = ("none", "percentile")


@dataclass(frozen=True)
class Scale:
    """`(pixels - offset) / divisor` for each channel, in float32; None leaves the pixels as they are."""

    offset: npt.NDArray[np.float32]
    divisor: npt.NDArray[np.float32]


def measure(pixels: npt.NDArray[np.generic], method: str) -> Scale | None:
    """Measure a whole plane (C, Y, X) for `method`.

    `percentile` scales the 1st and 99th percentile of each channel (linear interpolation, finite pixels
    only) to 0 and 1, without clipping. `none` needs no measure.
    """
    if method == "none":
        return None
    if method != "percentile":
        raise ValueError(f"normalization = {method!r}: must be one of {', '.join(METHODS)}")
    low, high = [], []
    for channel in pixels:
        finite = channel[np.isfinite(channel)] if channel.dtype.kind == "f" else channel
        p1, p99 = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
        low.append(p1)
        high.append(p99)
    divisor = np.maximum(np.subtract(high, low), 1e-6)
    return Scale(np.asarray(low, np.float32), divisor.astype(np.float32))


def to_float(tile: npt.NDArray[np.generic], scale: Scale | None) -> npt.NDArray[np.float32]:
    """A tile (C, h, w) as float32, scaled; pixels that are not finite become 0."""
    out = tile.astype(np.float32)
    if scale is not None:
        out -= scale.offset[:, None, None]
        out /= scale.divisor[:, None, None]
    if tile.dtype.kind == "f":
        out[~np.isfinite(out)] = 0.0
    return out


def masked(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_] | None:
    """Where any channel of (C, Y, X) is NaN or infinite; None if no pixel is."""
    if pixels.dtype.kind != "f":
        return None
    mask: npt.NDArray[np.bool_] = ~np.isfinite(pixels).all(axis=0)
    return mask if mask.any() else None
