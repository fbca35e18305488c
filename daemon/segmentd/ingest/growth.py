"""Decides which parts of a growing image are complete. Pure: told what each part looks like, in order.

Writers go through an image from its first page (or plane) to its last. So a part has all its pixels when a
later one was begun. A part without any value but 0 counts as not begun: it may be room that was taken in
advance. A writer who keeps to no order, or comes back, is not understood: whoever uses a complete part must
check at the end that its pixels stayed the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum


class Part(Enum):
    """What is there of a page, or of a plane."""

    EMPTY = "nothing, or zeros only"
    BEGUN = "some of it"
    WRITTEN = "all of it, unless it lies in room that was taken in advance"


def complete(parts: Sequence[Part]) -> set[int]:
    """Numbers of the parts that are written, and followed by another one that was at least begun."""
    last = max((number for number, part in enumerate(parts) if part is not Part.EMPTY), default=-1)
    return {number for number, part in enumerate(parts[:last]) if part is Part.WRITTEN}


def full_grid(places: Sequence[Mapping[str, str]]) -> int:
    """How many of the first pages fill a grid: each combination of the values of their axes, once.

    Parameters
    ----------
    places : sequence of mapping
        Value of each axis, for each page in the order of the file; empty where a page does not say.
    """
    values: dict[str, set[str]] = {}
    found: set[tuple[str, ...]] = set()
    count = 0
    for number, place in enumerate(places, 1):
        if not place:
            break
        for axis, value in place.items():
            values.setdefault(axis, set()).add(value)
        found.add(tuple(place.values()))
        if len(found) == number == math.prod(len(of_axis) for of_axis in values.values()):
            count = number
    return count
