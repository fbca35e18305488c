"""What happens to labels: drawn, taken from masks and segmentations, moved with their classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]
SEED = 0


def merged(labels: Labels, drawn: Labels) -> Labels:
    """Labels with others drawn over them; 0 draws nothing."""
    return np.where(drawn > 0, drawn, labels)


def with_mask(labels: Labels, value: int, mask: npt.NDArray[np.bool_], pixel_count: int = 0) -> Labels:
    """Labels in which the class `value` is where the mask is, and nowhere else.

    Parameters
    ----------
    labels : uint8 array (Y, X)
        0 = unlabelled, 1..K = class.
    value : int
        The class; its labels are replaced.
    mask : bool array (Y, X)
        Where the class is.
    pixel_count : int
        Take only so many pixels of the mask, drawn at random and always the same ones; 0 for all.
    """
    if 0 < pixel_count < np.count_nonzero(mask):
        places = np.flatnonzero(mask)
        drawn = np.random.default_rng(SEED).choice(places, pixel_count, replace=False)
        mask = np.zeros(mask.shape, np.bool_)
        mask.ravel()[drawn] = True
    out = np.where(labels == value, np.uint8(0), labels)
    out[mask] = value
    return out


def with_segmentation(
    labels: Labels, segmentation: Labels, chosen: npt.NDArray[np.bool_], value: int = 0
) -> Labels:
    """Labels with those of a segmentation where `chosen` and not yet labelled; `value` 0 for all classes."""
    wanted = chosen & (labels == 0) & ((segmentation == value) if value else (segmentation > 0))
    return np.where(wanted, segmentation, labels)


def without_class(labels: Labels, value: int) -> Labels:
    """Labels without one class; higher values move down by one."""
    table = np.arange(256, dtype=np.uint8)
    table[value] = 0
    table[value + 1 :] -= 1
    return table[labels]


def counts(labels: Labels, class_count: int) -> tuple[int, ...]:
    """Labelled pixels of class 1, 2, ... K."""
    return tuple(int(n) for n in np.bincount(labels.ravel(), minlength=class_count + 1)[1 : class_count + 1])
