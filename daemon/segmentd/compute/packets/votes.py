"""From the leaves of a pure forest to labels or scores: votes are counted bit by bit."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

from numba.extending import register_jitable

from segmentd.compute.packets.layout import LEAF, PACKET_PIXELS, TREES_AT_ONCE
from segmentd.compute.packets.masks import BIT_PLANES, GROUP, append_bit, count_eight, elect
from segmentd.compute.packets.memory import fill, load_i64, load_u8, load_u32, store_f64, store_i64
from segmentd.compute.packets.output import bit_of_pixel, place_of_packet, put_labels

_ROW_BYTES = 8 * GROUP


@register_jitable(error_model="numpy")
def finish_by_votes(job, first, count, leaves):
    """Write scores, or labels and confidence, of a group of packets from its list of leaves."""
    most, winners, counts = job.most, job.winners, job.counts
    _collect(job, leaves)
    fill(most, 0, count * PACKET_PIXELS)
    fill(winners, 1, count * PACKET_PIXELS)
    for k in range(job.classes):
        _count_planes(job, k)
        for packet in range(count):
            _count_bytes(job, packet)
            if job.scores:
                _put_scores(job, first + packet, k)
            offset = packet * PACKET_PIXELS
            elect(counts, k + 1, most + offset, winners + offset)
    if job.labels:
        for packet in range(count):
            offset = packet * PACKET_PIXELS
            put_labels(job, first + packet, winners + offset, most + offset)


@register_jitable(error_model="numpy")
def _collect(job, leaves):
    """Join the masks of the leaves of a tree that vote for the same class.

    At `job.votes` lies a row of masks, one for each packet, for each class and tree. They are empty before;
    `count_eight` leaves them so.
    """
    list_bytes = job.list_bytes
    # Steps of codes and packets are half those of rows and masks, so twice the item is the place.
    start = job.votes + 2 * LEAF
    for entry in range(job.leaves, job.leaves + 4 * leaves, 4):
        mask = start + 2 * load_u32(entry)
        low, high = load_u32(entry + list_bytes), load_u32(entry + 2 * list_bytes)
        store_i64(mask, load_i64(mask) | low | high << 32)


@register_jitable(error_model="numpy")
def _count_planes(job, k):
    """Count the votes for class k of all packets of the group, as bit planes."""
    fill(job.bit_planes, 0, BIT_PLANES * _ROW_BYTES)
    start = job.votes + k * job.vote_places * _ROW_BYTES
    for eight in range(start, start + job.vote_places * _ROW_BYTES, TREES_AT_ONCE * _ROW_BYTES):
        count_eight(eight, job.bit_planes)


@register_jitable(error_model="numpy")
def _count_bytes(job, packet):
    """The bit planes of a packet as 64 bytes."""
    fill(job.counts, 0, PACKET_PIXELS)
    for bit in range(job.vote_bits - 1, -1, -1):
        append_bit(job.counts, job.bit_planes + bit * _ROW_BYTES + 8 * packet)


@register_jitable(error_model="numpy")
def _put_scores(job, packet, k):
    """The counts of a packet as scores of class k."""
    top, left, rows, columns = place_of_packet(job, packet)
    for row in range(rows):
        target = job.scores + 8 * ((k * job.height + top + row) * job.width + left)
        for column in range(columns):
            votes = load_u8(job.counts + bit_of_pixel(job, row, column))
            store_f64(target + 8 * column, votes / job.trees)
