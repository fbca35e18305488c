"""What a card could do at best, on paper: the roofline of `daemon/README.md`, for a model and a card."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segmentd.compute.feature_plan import FeaturePlan
from segmentd.compute.forest import ForestArrays

# Assumed of every card: steps through a forest and loads of filters in a cycle of a multiprocessor, and what
# the start of a kernel takes.
FOREST_STEPS_A_CYCLE = 2.0
LOADS_A_CYCLE = 32.0
LAUNCH_SECONDS = 5e-6
STREAMS = 2
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Rates:
    """A card: multiprocessors, their clock in Hz, and bytes a second of its memory."""

    multiprocessors: int
    clock_hz: float
    memory_bytes_per_s: float


def limits(rates: Rates, plan: FeaturePlan, nodes: float, tile_px: int) -> dict[str, float]:
    """Megapixels a second that each part of the card allows; the smallest is what to expect at most.

    The bus to the card is left out: nobody says how fast that is.

    Parameters
    ----------
    rates : Rates
        The card.
    plan : FeaturePlan
        The features.
    nodes : float
        Inner nodes that a pixel meets in all trees, see `nodes_on_the_way`.
    tile_px : int
        Edge of a tile.
    """
    cycles = rates.multiprocessors * rates.clock_hz
    passes = len(plan.steps)
    # Every pass reads and writes a plane; the forest reads all planes that it has.
    read_and_written = FLOAT_BYTES * (2 * passes + plan.plane_count)
    # A filter loads the pixels on either side together with the one in the middle.
    loads = float((2 * plan.steps["radius"] + 1).sum())
    launches = passes + plan.channel_count + 1
    return {
        "forest": cycles * FOREST_STEPS_A_CYCLE / max(nodes, 1.0) / 1e6,
        "filters": cycles * LOADS_A_CYCLE / loads / 1e6,
        "memory": rates.memory_bytes_per_s / read_and_written / 1e6,
        "launches": tile_px**2 * STREAMS / (launches * LAUNCH_SECONDS) / 1e6,
    }


def nodes_on_the_way(forest: ForestArrays, features: npt.NDArray[np.float32]) -> float:
    """Inner nodes that a pixel meets in all trees, on average over some pixels: features (n, F)."""
    met = 0
    for root in forest.roots:
        place = np.full(len(features), root)
        pixels = np.arange(len(features))
        while pixels.size:
            pixels = pixels[forest.feature[place[pixels]] >= 0]
            at = place[pixels]
            left = features[pixels, forest.feature[at]] <= forest.threshold[at]
            place[pixels] = np.where(left, forest.left[at], forest.right[at])
            met += pixels.size
    return met / max(1, len(features))
