"""The walk without anything special: pixel by pixel, for processors without SIMD and as a check."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

from numba import njit

from segmentd.compute.packets.layout import CODE_STEP, LEAF, PACKET_EDGE, PLANE_BYTES


@njit(nogil=True, cache=True, error_model="numpy")
def score_pixels(features, nodes, roots, leaf_values, scores):
    """Class scores of every pixel of a tile.

    Parameters
    ----------
    features : float32 array (packets, planes, 64)
    nodes, roots, leaf_values
        As in `PacketForest`; `leaf_values` has a row for every leaf number, pure or not.
    scores : float64 array (K, h, w)
        Zeros; filled.
    """
    classes, height, width = scores.shape
    columns = (width + PACKET_EDGE - 1) // PACKET_EDGE
    for y in range(height):
        for x in range(width):
            packet = features[y // PACKET_EDGE * columns + x // PACKET_EDGE]
            pixel = y % PACKET_EDGE * PACKET_EDGE + x % PACKET_EDGE
            for tree in range(roots.size):
                code = roots[tree]
                while code >= 0:
                    node = nodes[code // CODE_STEP]
                    value = packet[node.plane_offset // PLANE_BYTES, pixel]
                    code = node.left if value <= node.threshold else node.right
                values = leaf_values[(code - LEAF) // CODE_STEP]
                for k in range(classes):
                    scores[k, y, x] += values[k]
            for k in range(classes):
                scores[k, y, x] /= roots.size
