"""Graphs of TensorFlow's that came in old packages of networks (extra `deep`).

They have passed `segmentd.models.tf_check`: one input, one output, arithmetic only, and beside each variable
its value as a constant. TensorFlow's loader of SavedModels is not used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from segmentd.compute import tensorflow_device
from segmentd.compute.on_card import OnCard

Floats = npt.NDArray[np.float32]

NAME = "TensorFlow"
# The node that gives the scores, and before the name of a variable, the constant with its value.
OUTPUT = "segmentd_output"
VALUE_PREFIX = "segmentd_value/"


def is_graph(network: bytes) -> bool:
    """Whether a network is a graph, by its first field; ONNX files begin with another."""
    return network[:1] == b"\x0a"


def opened(graph: bytes, threads: int, card: OnCard | None = None) -> Callable[[Floats], Floats]:
    """A function from tiles to scores, for up to `threads` calls at once that use one each, or on the card.

    Raises
    ------
    SegmentdError
        MISSING_EXTRA. What TensorFlow raises over the graph is passed on.
    """
    tensorflow_device.require_extra("networks that were saved by TensorFlow")
    tensorflow, device = tensorflow_device.told(threads, card)
    definition = tensorflow.compat.v1.GraphDef.FromString(graph)
    made = tensorflow.Graph()
    with made.as_default(), tensorflow.device(device):
        tensorflow.graph_util.import_graph_def(definition, name="")
        begin = [
            tensorflow.raw_ops.AssignVariableOp(
                resource=made.get_tensor_by_name(f"{node.name.removeprefix(VALUE_PREFIX)}:0"),
                value=made.get_tensor_by_name(f"{node.name}:0"),
            )
            for node in definition.node
            if node.name.startswith(VALUE_PREFIX)
        ]
    taken = next(f"{node.name}:0" for node in definition.node if node.op == "Placeholder")
    session = tensorflow.compat.v1.Session(graph=made)
    session.run(begin)
    # A callable, so that each call does not look up its ends again.
    run: Callable[[Floats], Floats] = session.make_callable(f"{OUTPUT}:0", feed_list=[taken])
    return run
