"""Where a model is least sure: the boxes of lowest mean confidence that have few labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segmentd.records import Region

# A box with more of its pixels labelled has told what there is to tell.
MAX_LABELLED_SHARE = 0.25


def least_certain(
    confidence: npt.NDArray[np.uint8], labelled: npt.NDArray[np.bool_], box_px: int, count: int
) -> list[tuple[Region, float]]:
    """Boxes of lowest mean confidence, the least certain first; boxes do not overlap.

    Parameters
    ----------
    confidence : uint8 array (Y, X)
        Percent.
    labelled : bool array (Y, X)
        Pixels that have a label already: boxes full of them are left out.
    box_px : int
        Edge of a box in pixels; boxes at the lower and right edge are smaller.
    count : int
        How many at most.
    """
    rows = np.arange(0, confidence.shape[0], box_px)
    columns = np.arange(0, confidence.shape[1], box_px)
    heights = np.diff(rows, append=confidence.shape[0])
    widths = np.diff(columns, append=confidence.shape[1])
    areas = heights[:, None] * widths[None, :]
    means = _sums(confidence, rows, columns) / areas
    shares = _sums(labelled, rows, columns) / areas
    # A sliver at the edge says little.
    open_boxes = (shares <= MAX_LABELLED_SHARE) & (areas * 4 >= areas.max())
    order = np.argsort(np.where(open_boxes, means, np.inf), axis=None, kind="stable")
    found = []
    for place in order[:count]:
        y, x = np.unravel_index(place, means.shape)
        if open_boxes[y, x]:
            region = Region(int(rows[y]), int(columns[x]), int(heights[y]), int(widths[x]))
            found.append((region, float(means[y, x])))
    return found


def _sums(
    values: npt.NDArray[np.generic], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    bands = np.add.reduceat(values, rows, axis=0, dtype=np.int64)
    sums: npt.NDArray[np.float64] = np.add.reduceat(bands, columns, axis=1).astype(np.float64)
    return sums
