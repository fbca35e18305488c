"""The same field by the library pydensecrf, which holds the interpreter's lock: for worker processes.

The extra `crf` brings it, under the name pydensecrf2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pydensecrf.densecrf

from segmentd.compute.crf import Floats, Parameters, Window, kernels, log_probabilities
from segmentd.workers import wire


def infer(window: Window, parameters: Parameters) -> Floats:
    """As `segmentd.compute.crf.infer`."""
    own = log_probabilities(window, parameters)
    points, classes = own.shape
    field = pydensecrf.densecrf.DenseCRF(points, classes)
    field.setUnaryEnergy(np.ascontiguousarray(-own.T))
    for places, weight in kernels(window, parameters):
        field.addPairwiseEnergy(np.ascontiguousarray(places.T), float(weight))
    marginals = np.asarray(field.inference(parameters.iterations), np.float32)
    return marginals.reshape(window.scores.shape)


def run(args: dict[str, Any], fds: list[int]) -> tuple[None, list[wire.AnyArray]]:
    """What a worker calls: `arrays` describes scores and guide in the memory behind the descriptor."""
    scores, guide = wire.map_arrays(args["arrays"], fds[0])
    y, x = args["place"]
    return None, [infer(Window(scores, guide, y, x), Parameters(**args["parameters"]))]
