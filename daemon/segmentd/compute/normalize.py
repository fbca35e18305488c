"""Normalisation of a plane: what is subtracted and divided before features are computed.

Percentiles come from histograms, so that a plane can be measured block by block: the result is exact and
does not depend on the blocks. A first pass counts the upper 16 bits of each value; for 32-bit types a
second pass counts the lower 16 bits where the wanted ranks fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

METHODS = ("none", "percentile")
LOW_PERCENT, HIGH_PERCENT = 1.0, 99.0
MIN_RANGE = 1e-6

Blocks = Callable[[], Iterable[npt.NDArray[np.generic]]]
_BINS = 1 << 16
_PIECE_PIXELS = 1 << 20


@dataclass(frozen=True)
class Scale:
    """`(pixels - offset) / divisor` for each channel, in float32."""

    offset: npt.NDArray[np.float32]
    divisor: npt.NDArray[np.float32]


def measure(blocks: Blocks, method: str) -> Scale | None:
    """Measure a plane.

    Parameters
    ----------
    blocks : callable
        Gives the plane's blocks (C, h, w), each pixel once, in any order; called once or twice.
    method : str
        `none` needs no measure (None). `percentile` scales the 1st and 99th percentile of each channel
        (linear interpolation as `numpy.percentile`, finite pixels only) to 0 and 1, without clipping.
    """
    if method == "none":
        return None
    if method != "percentile":
        raise ValueError(f"normalization = {method!r}: must be one of {', '.join(METHODS)}")
    bounds = percentiles(blocks, (LOW_PERCENT, HIGH_PERCENT))
    divisor = np.maximum(bounds[:, 1] - bounds[:, 0], MIN_RANGE)
    return Scale(bounds[:, 0].astype(np.float32), divisor.astype(np.float32))


def percentiles(blocks: Blocks, percents: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Percentiles of the finite pixels of each channel: float64 (C, len(percents)); 0..1 if none."""
    counts: list[npt.NDArray[np.int64]] = []
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    for block in _pieces(blocks):
        dtype = block.dtype
        found = [np.bincount(_keys(channel) >> _shift(dtype), minlength=_BINS) for channel in block]
        counts = [a + b for a, b in zip(counts, found, strict=True)] if counts else found
    ranks = [_ranks(int(count.sum()), percents) for count in counts]
    if _shift(dtype):
        values = _refined(blocks, counts, ranks, dtype)
    else:
        values = [
            _values(np.searchsorted(np.cumsum(c), r[0], side="right"), dtype)
            for c, r in zip(counts, ranks, strict=True)
        ]
    out = np.array([_between(v, r[1]) for v, r in zip(values, ranks, strict=True)])
    empty = np.array([count.sum() == 0 for count in counts])
    out[empty] = np.linspace(0.0, 1.0, len(percents))
    return out


def _pieces(blocks: Blocks) -> Iterator[npt.NDArray[np.generic]]:
    """The blocks in pieces of rows that keep the keys small."""
    for block in blocks():
        rows = max(1, _PIECE_PIXELS // block.shape[2])
        for start in range(0, block.shape[1], rows):
            yield block[:, start : start + rows]


def _ranks(total: int, percents: tuple[float, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Ranks below and above each percentile, in turns, and how far the percentile lies between them."""
    place = np.maximum(total - 1, 0) * np.asarray(percents) / 100.0
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, max(total - 1, 0))
    return np.stack([low, high], axis=1).ravel(), place - low


def _between(values: npt.NDArray[np.float64], share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = values[0::2], values[1::2]
    out: npt.NDArray[np.float64] = low + (high - low) * share
    return out


def _refined(
    blocks: Blocks,
    counts: list[npt.NDArray[np.int64]],
    ranks: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]],
    dtype: np.dtype[np.generic],
) -> list[npt.NDArray[np.float64]]:
    """Second pass for 32-bit types: the values of the wanted ranks, exactly."""
    sums = [np.cumsum(count) for count in counts]
    bins = [
        np.minimum(np.searchsorted(s, r[0], side="right"), _BINS - 1)
        for s, r in zip(sums, ranks, strict=True)
    ]
    fine = [{int(b): np.zeros(_BINS, np.int64) for b in wanted} for wanted in bins]
    for block in _pieces(blocks):
        for channel, tables in zip(block, fine, strict=True):
            keys = _keys(channel)
            upper = keys >> 16
            for wanted, table in tables.items():
                table += np.bincount(keys[upper == wanted] & 0xFFFF, minlength=_BINS)
    found = []
    for s, (rank, _), places, tables in zip(sums, ranks, bins, fine, strict=True):
        before = np.where(places > 0, s[places - 1], 0)
        lower = [
            int(np.searchsorted(np.cumsum(tables[int(b)]), r - first, side="right"))
            for b, r, first in zip(places, rank, before, strict=True)
        ]
        found.append(_values((places << 16) + np.minimum(lower, _BINS - 1), dtype))
    return found


def _shift(dtype: np.dtype[np.generic]) -> int:
    """Bits of a key that the first pass leaves out."""
    return 16 if dtype.itemsize == 4 else 0


def _keys(channel: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """Finite values as whole numbers from 0 in the same order."""
    values = np.ascontiguousarray(channel).ravel()
    if values.dtype.kind == "f":
        bits = values[np.isfinite(values)].astype(np.float32).view(np.uint32).astype(np.int64)
        # Negative floats count downwards in their bits.
        out: npt.NDArray[np.int64] = np.where(bits >= 1 << 31, (1 << 32) - 1 - bits, bits + (1 << 31))
        return out
    out = values.astype(np.int64)
    if values.dtype.kind == "i":
        out += 1 << (8 * values.dtype.itemsize - 1)
    return out


def _values(keys: npt.NDArray[np.int64], dtype: np.dtype[np.generic]) -> npt.NDArray[np.float64]:
    """The values that keys stand for."""
    keys = np.asarray(keys, np.int64)
    if dtype.kind == "f":
        bits = np.where(keys >= 1 << 31, keys - (1 << 31), (1 << 32) - 1 - keys)
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
    if dtype.kind == "i":
        keys = keys - (1 << (8 * dtype.itemsize - 1))
    return keys.astype(np.float64)


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
