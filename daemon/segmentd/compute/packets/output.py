"""From the order of bits in a mask to rows of pixels, without what lies beyond the tile's edge."""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

from numba.extending import register_jitable

from segmentd.compute.packets.layout import PACKET_EDGE, PACKET_PIXELS
from segmentd.compute.packets.memory import load_u8, load_u32, store_four_bytes, store_u8

_RUN = 4


@register_jitable(error_model="numpy")
def bit_of_pixel(job, row, column):
    """The bit of a mask that stands for a pixel of a packet.

    Comparisons differ in the order of bits, but all keep four rows in either half and runs of four pixels.
    """
    half = row // 4 * (PACKET_PIXELS // 2)
    return half + row % 4 * job.row_step + column // _RUN * job.run_step + column % _RUN


@register_jitable(error_model="numpy")
def place_of_packet(job, packet):
    """First row and column of a packet, and how many of its rows and columns lie inside the tile."""
    top, left = packet // job.columns * PACKET_EDGE, packet % job.columns * PACKET_EDGE
    return top, left, min(PACKET_EDGE, job.height - top), min(PACKET_EDGE, job.width - left)


@register_jitable(error_model="numpy")
def put_labels(job, packet, labels, most):
    """Write labels and confidence of a packet.

    `labels` and `most` are 64 bytes each, in the order of bits; `job.percents` says what of `most` to write.
    """
    top, left, rows, columns = place_of_packet(job, packet)
    percents, run_step = job.percents, job.run_step
    for row in range(rows):
        label = job.labels + (top + row) * job.label_pitch + left
        percent = job.confidence + (top + row) * job.confidence_pitch + left
        bit = bit_of_pixel(job, row, 0)
        if columns == PACKET_EDGE:
            _put_run(label, percent, labels + bit, most + bit, percents, _RUN)
            bit += run_step
            _put_run(label + _RUN, percent + _RUN, labels + bit, most + bit, percents, _RUN)
        else:
            _put_run(label, percent, labels + bit, most + bit, percents, min(columns, _RUN))
            bit += run_step
            _put_run(label + _RUN, percent + _RUN, labels + bit, most + bit, percents, columns - _RUN)


@register_jitable(error_model="numpy")
def _put_run(label, percent, labels, most, percents, count):
    """Write `count` pixels, four at most."""
    if count == _RUN:
        store_four_bytes(label, load_u32(labels))
        four = load_u8(percents + load_u8(most))
        for column in range(1, _RUN):
            four |= load_u8(percents + load_u8(most + column)) << 8 * column
        store_four_bytes(percent, four)
    else:
        for column in range(count):
            store_u8(label + column, load_u8(labels + column))
            store_u8(percent + column, load_u8(percents + load_u8(most + column)))
