"""The forest by packets: 64 pixels walk a tree together.

The fast way from features to labels; `segmentd.compute.forest` is the simple one, with the same results to
the bit. A packet is 8 x 8 pixels, which mostly go the same way: they are compared with a node's threshold
at once, and a mask of 64 bits says which of them are meant.

`layout` lays a forest out, `classification` is the way in, `choice` picks a kernel for the processor. Below
that is compiled code: `walk` takes packets from the roots to the leaves, `votes` and `distributions` make
labels of the leaves; `masks`, `x86` and `memory` are the vector code that they are made of.
"""

from __future__ import annotations

from segmentd.compute.packets.choice import Kernel, choose_kernel
from segmentd.compute.packets.classification import classify, scores, warm_up
from segmentd.compute.packets.job import Scratch
from segmentd.compute.packets.layout import PacketForest, compile_forest

__all__ = [
    "Kernel",
    "PacketForest",
    "Scratch",
    "choose_kernel",
    "classify",
    "compile_forest",
    "scores",
    "warm_up",
]
