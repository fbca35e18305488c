"""From the leaves of any forest to labels or scores: distributions are added up tree by tree.

The sums are in float64 and in the order of the trees, for every pixel by itself: the same bits as
scikit-learn's.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from segmentd.compute.packets.layout import CODE_STEP, PACKET_PIXELS, VALUES_AT_ONCE
from segmentd.compute.packets.masks import GROUP, average_eight, mark
from segmentd.compute.packets.memory import fill, load_f64, load_u32, store_f64, store_u8, store_u32
from segmentd.compute.packets.output import bit_of_pixel, place_of_packet, put_labels
from segmentd.compute.packets.walk import LARGEST_INNER_CODE, PACKET_BITS, PACKET_STEP


@register_jitable(error_model="numpy")
def finish_by_distributions(job, first, count, leaves):
    """Write scores, or labels and confidence, of a group of packets from its list of leaves."""
    _mark_leaves(job, leaves)
    for packet in range(count):
        _average(job, packet)
        if job.scores:
            _put_scores(job, first + packet)
        if job.labels:
            _elect(job)
            put_labels(job, first + packet, job.winners, job.most)


@register_jitable(error_model="numpy")
def _mark_leaves(job, leaves):
    """For each packet and tree: its leaves, and which of them a pixel has come to.

    There are 64 at most, and the masks of all leaves of a tree together are all pixels.
    """
    trees, list_bytes, leaf_trees = job.trees, job.list_bytes, job.leaf_trees
    own_leaves, leaf_counts, marks = job.own_leaves, job.leaf_counts, job.marks
    fill(leaf_counts, 0, 4 * GROUP * trees)
    fill(marks, 0, PACKET_PIXELS * GROUP * trees)
    for entry in range(job.leaves, job.leaves + 4 * leaves, 4):
        item = load_u32(entry)
        leaf = (item & LARGEST_INNER_CODE) // CODE_STEP
        place = (item & PACKET_BITS) // PACKET_STEP * trees + load_u32(leaf_trees + 4 * leaf)
        number = load_u32(leaf_counts + 4 * place)
        store_u32(leaf_counts + 4 * place, number + 1)
        store_u32(own_leaves + 4 * (PACKET_PIXELS * place + number), leaf)
        mask = load_u32(entry + list_bytes) | load_u32(entry + 2 * list_bytes) << 32
        mark(number, mask, marks + PACKET_PIXELS * place)


@register_jitable(error_model="numpy")
def _average(job, packet):
    """Scores of the pixels of a packet."""
    marks = job.marks + packet * job.trees * PACKET_PIXELS
    own_leaves = job.own_leaves + packet * job.trees * 4 * PACKET_PIXELS
    for place in range(0, job.value_bytes, 8 * VALUES_AT_ONCE):
        for pixel in range(0, PACKET_PIXELS, 8):
            means = job.means + pixel * job.value_bytes + place
            values = job.leaf_values + place
            average_eight(marks + pixel, own_leaves, values, job.value_bytes, job.trees, means)


@register_jitable(error_model="numpy")
def _elect(job):
    """Label and confidence of the pixels of a packet."""
    means, value_bytes, classes = job.means, job.value_bytes, job.classes
    winners, most = job.winners, job.most
    for pixel in range(PACKET_PIXELS):
        scores = means + pixel * value_bytes
        winner, best = 0, load_f64(scores)
        for k in range(1, classes):
            score = load_f64(scores + 8 * k)
            if score > best:
                winner, best = k, score
        store_u8(winners + pixel, winner + 1)
        store_u8(most + pixel, np.int64(np.rint(100.0 * best)))


@register_jitable(error_model="numpy")
def _put_scores(job, packet):
    top, left, rows, columns = place_of_packet(job, packet)
    for row in range(rows):
        for column in range(columns):
            scores = job.means + bit_of_pixel(job, row, column) * job.value_bytes
            target = job.scores + 8 * ((top + row) * job.width + left + column)
            for k in range(job.classes):
                store_f64(target + 8 * k * job.height * job.width, load_f64(scores + 8 * k))
