"""What a plane is computed with in place of the CPU's own code, in the middle of its tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from segmentd.compute import crf
from segmentd.compute.fast_features import Floats
from segmentd.engine.array_models import Evaluate
from segmentd.engine.device import BatchTile
from segmentd.engine.predictor import Predictor


@dataclass(frozen=True)
class Offload:
    """Functions that any thread may call.

    Attributes
    ----------
    evaluate : callable
        What a network makes of tiles.
    scores : callable
        As `Predictor.scores`, of a tile with its surroundings.
    marginals : callable
        As `segmentd.engine.refiner.Refiner.marginals`.
    """

    evaluate: Evaluate
    scores: Callable[[Predictor, BatchTile], Floats]
    marginals: Callable[[crf.Window, crf.Parameters], Floats]
