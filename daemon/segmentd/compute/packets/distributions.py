"""From the leaves of any forest to labels or scores: distributions are added up tree by tree.

The sums are in float64 and in the order of the trees, for every pixel by itself: the same bits as
scikit-learn's.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from segmentd.compute.packets.layout import CODE_STEP, PACKET_PIXELS, VALUES_AT_ONCE
from segmentd.compute.packets.masks import add_values, put_where
from segmentd.compute.packets.memory import fill, load_f64, load_u32, store_f64, store_u8
from segmentd.compute.packets.output import bit_of_pixel, place_of_packet, put_labels
from segmentd.compute.packets.walk import LARGEST_INNER_CODE, PACKET_BITS, PACKET_STEP

_STEP_BYTES = 8 * VALUES_AT_ONCE


@register_jitable(error_model="numpy")
def label_by_distributions(job, first, count, leaves):
    """Write labels and confidence of a group of packets from its list of leaves."""
    _number_leaves(job, leaves)
    sums, value_bytes = job.sums, job.value_bytes
    for packet in range(count):
        _add_up(job, packet)
        for pixel in range(PACKET_PIXELS):
            winner, best = 0, -1.0
            for k in range(job.classes):
                # Divided before they are compared: that can make two of them equal.
                score = load_f64(sums + pixel * value_bytes + 8 * k) / job.trees
                if score > best:
                    winner, best = k, score
            store_u8(job.winners + pixel, winner + 1)
            store_u8(job.most + pixel, np.int64(np.rint(100.0 * best)))
        put_labels(job, first + packet, job.winners, job.most)


@register_jitable(error_model="numpy")
def score_by_distributions(job, first, count, leaves):
    """Write scores of a group of packets from its list of leaves."""
    _number_leaves(job, leaves)
    for packet in range(count):
        _add_up(job, packet)
        top, left, rows, columns = place_of_packet(job, first + packet)
        for row in range(rows):
            for column in range(columns):
                sums = job.sums + bit_of_pixel(job, row, column) * job.value_bytes
                target = job.scores + 8 * ((top + row) * job.width + left + column)
                for k in range(job.classes):
                    score = load_f64(sums + 8 * k) / job.trees
                    store_f64(target + 8 * k * job.height * job.width, score)


@register_jitable(error_model="numpy")
def _number_leaves(job, leaves):
    """For each packet, tree and pixel, which leaf: every pixel has one in each tree, so none is left over."""
    list_bytes, leaf_of_pixel = job.list_bytes, job.leaf_of_pixel
    for entry in range(job.leaves, job.leaves + 4 * leaves, 4):
        item = load_u32(entry)
        leaf = (item & LARGEST_INNER_CODE) // CODE_STEP
        tree = (item & PACKET_BITS) // PACKET_STEP * job.trees + load_u32(job.leaf_trees + 4 * leaf)
        low, high = load_u32(entry + list_bytes), load_u32(entry + 2 * list_bytes)
        put_where(leaf, low, high, leaf_of_pixel + tree * 4 * PACKET_PIXELS)


@register_jitable(error_model="numpy")
def _add_up(job, packet):
    """Sums of a packet: `value_bytes` for each pixel."""
    first_sums, leaf_values, value_bytes = job.sums, job.leaf_values, job.value_bytes
    fill(first_sums, 0, PACKET_PIXELS * value_bytes)
    leaf_number = job.leaf_of_pixel + packet * job.trees * 4 * PACKET_PIXELS
    for _ in range(job.trees):
        for sums in range(first_sums, first_sums + PACKET_PIXELS * value_bytes, value_bytes):
            values = leaf_values + load_u32(leaf_number) * value_bytes
            for place in range(0, value_bytes, _STEP_BYTES):
                add_values(values + place, sums + place)
            leaf_number += 4
