"""Carries out the steps of a feature plan: the compiled loops over the blocks of a tile.

Arrays are passed on as byte addresses, which is what `vector_blocks` works with. Rows of eight float32
are `ROW_BYTES` apart, blocks of eight rows `BLOCK_BYTES`.
"""

# Numba compiles these by the types of their arguments
# mypy: disable-error-code="no-untyped-def,untyped-decorator,call-arg"

from __future__ import annotations

import numpy as np
from numba import njit

from segmentd.compute.feature_plan import ALONG_X, ALONG_Y, ALONG_Y_FOR_SOBEL, ALONG_Y_ONTO, SOBEL
from segmentd.compute.vector_blocks import (
    BLOCK_BYTES,
    LANES,
    ROW_BYTES,
    filter_even_plus,
    filter_even_turned,
    filter_odd,
    filter_odd_onto,
    filter_odd_turned,
    sobel_magnitude,
    turn,
)


@njit(nogil=True, cache=True, error_model="numpy")
def lay_out(pixels, rows, columns, offset, divisor, level, lines, strips):
    """Gather pixels[c, rows, columns] as scaled float32 into strips of eight rows, turned.

    Parameters
    ----------
    pixels : array (C, Y, X)
        A plane, or a tile of it.
    rows, columns : int arrays (8 * strips,), (length,)
        Where each row and column comes from.
    offset, divisor, level : float32 arrays (C,)
        (pixel - offset) / divisor, 0 where this is not finite; then minus level.
    lines : float32 array (8, length)
        Working memory.
    strips : float32 array (C, strips, length, 8)
        The result: strips[c, s, x, i] is pixel (rows[8 s + i], columns[x]).
    """
    # From `left` to `right` the columns lie side by side: no need to look each one up
    length = columns.size
    left = length // 2
    right = left
    while left > 0 and columns[left - 1] == columns[left] - 1:
        left -= 1
    while right + 1 < length and columns[right + 1] == columns[right] + 1:
        right += 1
    line_start, pitch = np.int64(lines.ctypes.data), np.int64(lines.strides[0])
    strip_start = np.int64(strips.ctypes.data)
    for c in range(strips.shape[0]):
        for s in range(strips.shape[1]):
            for i in range(LANES):
                source, line = pixels[c, rows[s * LANES + i]], lines[i]
                inside, middle = source[columns[left] : columns[right] + 1], line[left : right + 1]
                for x in range(middle.size):
                    middle[x] = _scaled(inside[x], offset[c], divisor[c], level[c])
                for x in range(left):
                    line[x] = _scaled(source[columns[x]], offset[c], divisor[c], level[c])
                for x in range(right + 1, length):
                    line[x] = _scaled(source[columns[x]], offset[c], divisor[c], level[c])
            out = strip_start + (c * strips.shape[1] + s) * length * ROW_BYTES
            for x in range(0, length - LANES + 1, LANES):
                turn(line_start + 4 * x, pitch, out + x * ROW_BYTES)
            for x in range(length - length % LANES, length):
                for i in range(LANES):
                    strips[c, s, x, i] = lines[i, x]


@njit(nogil=True, cache=True, error_model="numpy")
def _scaled(pixel, offset, divisor, level):
    value = (np.float32(pixel) - offset) / divisor
    return (value if np.isfinite(value) else np.float32(0)) - level


@njit(nogil=True, cache=True, error_model="numpy")
def carry_out(
    steps, weights, reach, level, strips, turned, images, nowhere, out, packet_rows, first, at_once
):
    """Compute columns `first`, ... of packets; as many as `out` has room for.

    Parameters
    ----------
    steps, weights, reach
        Of the plan.
    level : float32 array (C,)
        As for `lay_out`: what lacks in the strips and is added to the results.
    strips : float32 array (C, strips, length, 8)
        The tile: strips[c, s, 8 + reach + x, i] is pixel (8 s + i - reach, x), counted from its core.
    turned : float32 array (at_once + 2, 8 * strips, 8)
        Columns after a pass along x: turned[k, reach + y, i] is pixel (y, 8 (begin + k) + i).
    images : float32 array (images, at_once + 2, 8 * (packet_rows + 1), 8)
        The last columns of the Gaussians for Sobel filters, from y = -1.
    nowhere : float32 array (8, 8)
        Takes what is not wanted.
    out : float32 array (packet_rows * columns, planes, 64)
        The packets.
    packet_rows, first, at_once : int
        Rows of packets; first column of `out`; columns that go through a step before the next step.
    """
    columns = out.shape[0] // packet_rows
    plane_bytes = 4 * out.shape[2]
    packet_bytes = plane_bytes * out.shape[1]
    down = packet_bytes * columns
    nowhere_start, weight_start = np.int64(nowhere.ctypes.data), np.int64(weights.ctypes.data)
    strip_bytes, turned_bytes = strips.shape[2] * ROW_BYTES, turned.shape[1] * ROW_BYTES
    places, image_bytes = images.shape[1], images.shape[2] * ROW_BYTES
    turned_start, turned_core = np.int64(turned.ctypes.data), np.int64(turned.ctypes.data) + reach * ROW_BYTES

    for column in range(first, first + columns, at_once):
        stop = min(column + at_once, first + columns)
        for number in range(steps.size):
            step = steps[number]
            taps = weight_start + 4 * step.weights, step.radius, step.odd, step.even_length * ROW_BYTES
            # Sobel filters need the column after theirs; the first one also that before
            begin, end = column, stop
            if step.ahead and step.operation != SOBEL:
                begin, end = (-1 if column == 0 else column + 1), stop + 1
            if step.operation == ALONG_X:
                above = reach - step.reach - step.ahead
                below = reach + packet_rows * LANES + step.reach + step.ahead * (LANES - 1)
                source = np.int64(strips.ctypes.data) + step.channel * strips.shape[1] * strip_bytes
                for s in range(above // LANES, -(-below // LANES)):
                    row = source + s * strip_bytes + (LANES + reach) * ROW_BYTES + begin * BLOCK_BYTES
                    _along_x(row, end - begin, taps, turned_start + s * BLOCK_BYTES, turned_bytes)
                continue
            lacking = np.float32(step.gain * level[step.channel])
            image = np.int64(images.ctypes.data) + step.image * places * image_bytes
            for k in range(begin, end):
                row = turned_core + (k - begin) * turned_bytes
                packet = np.int64(out.ctypes.data) + (k - first) * packet_bytes
                plane, plane_down = packet + step.plane * plane_bytes, down
                if step.plane < 0:
                    plane, plane_down = nowhere_start, 0
                other, other_down = packet + step.other * plane_bytes, down
                if step.other < 0:
                    other, other_down = nowhere_start, 0
                if step.operation == ALONG_Y:
                    _along_y(row, packet_rows, taps, plane, plane_down, lacking)
                elif step.operation == ALONG_Y_FOR_SOBEL:
                    place = image + (k + 1) % places * image_bytes
                    _along_y(row - ROW_BYTES, packet_rows + 1, taps, place, BLOCK_BYTES, np.float32(0))
                elif step.operation == ALONG_Y_ONTO:
                    _along_y_onto(row, packet_rows, taps, plane, plane_down, other, other_down)
                else:
                    left = image + k % places * image_bytes
                    middle = image + (k + 1) % places * image_bytes
                    right = image + (k + 2) % places * image_bytes
                    _sobel(left, middle, right, packet_rows, plane, plane_down, other, other_down, lacking)


@njit(nogil=True, cache=True, error_model="numpy")
def _along_x(row, count, taps, block, block_step):
    """Filter `count` blocks that follow one another in a strip."""
    weights, radius, odd, shift = taps
    for _ in range(count):
        if odd:
            filter_odd_turned(row, row - shift, weights, radius, block)
        else:
            filter_even_turned(row, row - shift, weights, radius, block)
        row += BLOCK_BYTES
        block += block_step


@njit(nogil=True, cache=True, error_model="numpy")
def _along_y(row, count, taps, block, block_step, lacking):
    """Filter `count` blocks, one below the other."""
    weights, radius, odd, shift = taps
    for _ in range(count):
        if odd:
            filter_odd(row, row - shift, weights, radius, block)
        else:
            filter_even_plus(row, row - shift, weights, radius, block, lacking)
        row += BLOCK_BYTES
        block += block_step


@njit(nogil=True, cache=True, error_model="numpy")
def _along_y_onto(row, count, taps, minus, minus_step, plus, plus_step):
    """Filter `count` blocks; subtract them from what lies at `minus` and add them into `plus`.

    What they are added to lies at `minus`, or at `plus` if nothing is wanted at `minus`.
    """
    weights, radius, _, shift = taps
    base, base_step = (minus, minus_step) if minus_step else (plus, plus_step)
    for _ in range(count):
        filter_odd_onto(row, row - shift, weights, radius, base, minus, plus)
        row += BLOCK_BYTES
        base += base_step
        minus += minus_step
        plus += plus_step


@njit(nogil=True, cache=True, error_model="numpy")
def _sobel(left, middle, right, count, copy, copy_step, out, out_step, lacking):
    """Sobel magnitudes of `count` blocks, one below the other, and a copy of what they are made of."""
    for _ in range(count):
        sobel_magnitude(left, middle, right, copy, out, lacking)
        left += BLOCK_BYTES
        middle += BLOCK_BYTES
        right += BLOCK_BYTES
        copy += copy_step
        out += out_step


@njit(nogil=True, cache=True, error_model="numpy")
def unpack(packets, plane_of_feature, out):
    """Packets of a whole tile (packets, planes, 64) to a feature stack (F, h, w)."""
    _, height, width = out.shape
    columns = -(-width // LANES)
    for f in range(out.shape[0]):
        plane = plane_of_feature[f]
        for y in range(height):
            for x in range(width):
                packet = y // LANES * columns + x // LANES
                out[f, y, x] = packets[packet, plane, y % LANES * LANES + x % LANES]
