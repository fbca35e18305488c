"""Class probabilities of a plane by themselves, for those who ask for them beside the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from segmentd.compute import tiling
from segmentd.engine.segmenter import Band, ScoredPlane
from segmentd.records import Region

# A multiple of the steps in which tiles may begin.
TILE_PX = 512


@dataclass(frozen=True)
class ScoredPart:
    """Probabilities of the classes in a rectangle of a plane, float32 (K, h, w); 0 for masked pixels."""

    region: Region
    scores: npt.NDArray[np.float32]


def pieces(plane: ScoredPlane, band: Band) -> Iterator[Callable[[], list[ScoredPart]]]:
    """Pieces of work that together score a band; any thread may do any of them."""
    for tile in tiling.cover(band.stop - band.start, plane.source.shape[2], TILE_PX):
        region = Region(tile.y + band.start, tile.x, tile.height, tile.width)
        yield partial(_score, plane, band, region)


def _score(plane: ScoredPlane, band: Band, region: Region) -> list[ScoredPart]:
    part = ScoredPart(region, plane.scores(band, region))
    if band.mask is not None:
        rows, columns = part.region.window
        part.scores[:, band.mask[rows.start - band.start : rows.stop - band.start, columns]] = 0
    return [part]
