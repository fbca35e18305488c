"""Pixel values to what a screen shows: stretched between percentiles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MAX_SAMPLES = 1_000_000


def shown_range(pixels: npt.NDArray[np.generic]) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of a sample; without finite values an empty range."""
    sample = pixels.ravel()[:: 1 + pixels.size // _MAX_SAMPLES].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return np.inf, np.inf
    low, high = np.percentile(sample, (0.5, 99.5))
    return float(low), float(high)


def stretched(pixels: npt.NDArray[np.generic], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Map `low` to `high` to 0..255."""
    if low == np.inf:
        return np.zeros(pixels.shape, np.uint8)
    scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    shown: npt.NDArray[np.float32] = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255)
    return shown.astype(np.uint8)
