"""The walk: a group of packets goes through all trees at once, level by level, without a branch on data.

An *item* is a node, a packet and a mask: the pixels of the packet that have come to the node. A level is
a list of items. Each item is compared, which splits its mask; the halves that are not empty are items of
the next level, or entries in the list of leaves. No step waits for the one before: on a stack each visit
would wait for its parent's comparison, in a level hundreds are independent.

For every batch of items there are two loops. The first compares: loads, and stores to fixed places. The
second moves the children, whose places depend on how many came before them. In one loop the processor
could not run ahead, since the addresses to store to are known late.

Lists are three arrays behind one another: packet and node (or leaf) of the item, the low and the high half
of the mask, all uint32. Room: see `Scratch`.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

from numba.extending import register_jitable

from segmentd.compute.packets.layout import CODE_STEP
from segmentd.compute.packets.masks import GROUP
from segmentd.compute.packets.memory import load_i64, load_u32, prefetch, store_i64, store_u32

BATCH = 32
MOST_LANES = 16
"""Items that `split` takes at once at most; lists and batches have room for so many more at the end."""
BATCH_BYTES = 4 * (BATCH + MOST_LANES)
PACKET_BITS = CODE_STEP - 1
PACKET_STEP = CODE_STEP // GROUP
"""An item is a code plus `PACKET_STEP` for each packet of the group before its own."""
ALL = -1
LARGEST_INNER_CODE = 2**31 - 1

ITEM_BYTES = 4
CACHE_LINE = 64
_START_STEP = 8 // PACKET_STEP


@register_jitable(error_model="numpy")
def walk_group(job, first, count, lines, compare, split, lanes):
    """Walk packets `first` .. `first + count - 1` through all trees.

    Parameters
    ----------
    job : record of `job.JOB`
        What and where.
    first, count : int
        The packets; `GROUP` at most.
    lines : int
        Cache lines of the next group to prefetch with every batch.
    compare : function
        As `masks.compare_halves`.
    split : function
        As `split_one`, for `lanes` items.
    lanes : int
        A divisor of `BATCH`.

    Returns
    -------
    leaves, visits : int
        Entries in the list of leaves at `job.leaves`, and items that were compared.
    """
    end, leaf = _begin(job, first, count)
    ahead = job.features + (first + count) * job.packet_bytes
    ahead_end = min(ahead + count * job.packet_bytes, job.features + job.packets * job.packet_bytes)
    level, next_level = job.level, job.next_level
    # Fields that the loops read are read once: for all the compiler knows, any store changes the job.
    list_bytes, nodes, packet_starts = job.list_bytes, job.nodes, job.packet_starts
    compared, children, compress_table = job.compared, job.children, job.compress_table
    split_bytes = ITEM_BYTES * lanes
    visits = 0
    while end > level:
        visits += (end - level) // ITEM_BYTES
        # Lanes behind the last item get empty masks: those have no children.
        lane = 0
        while lane < split_bytes:
            store_i64(end + list_bytes + lane, 0)
            store_i64(end + 2 * list_bytes + lane, 0)
            lane += 8
        next_end = next_level
        batch = level
        while batch < end:
            stop = min(ahead + lines * CACHE_LINE, ahead_end)
            while ahead < stop:
                prefetch(ahead)
                ahead += CACHE_LINE
            size = min(ITEM_BYTES * BATCH, end - batch)
            place = 0
            while place < size:
                item = load_u32(batch + place)
                node = nodes + (item & ~PACKET_BITS)
                packet = load_i64(packet_starts + _START_STEP * (item & PACKET_BITS))
                store_i64(children + 2 * place, load_i64(node + 8))
                below = compared + place
                compare(packet + load_u32(node), node + 4, below, below + BATCH_BYTES)
                place += ITEM_BYTES
            place = 0
            while place < size:
                item = batch + place
                below, pair = compared + place, children + 2 * place
                next_end, leaf = split(item, list_bytes, below, pair, next_end, leaf, compress_table)
                place += split_bytes
            batch += size
        end = next_end
        level, next_level = next_level, level
    return (leaf - job.leaves) // ITEM_BYTES, visits


@register_jitable(error_model="numpy")
def _begin(job, first, count):
    """Every root for every packet, with all its pixels: the first level, or a leaf if the tree is one."""
    end, leaf, list_bytes = job.level, job.leaves, job.list_bytes
    for packet in range(count):
        start = job.features + (first + packet) * job.packet_bytes
        store_i64(job.packet_starts + 8 * packet, start)
    for tree in range(job.trees):
        root = load_u32(job.roots + 4 * tree)
        for packet in range(count):
            if root <= LARGEST_INNER_CODE:
                place, end = end, end + ITEM_BYTES
            else:
                place, leaf = leaf, leaf + ITEM_BYTES
            store_u32(place, root | packet * PACKET_STEP)
            store_u32(place + list_bytes, ALL)
            store_u32(place + 2 * list_bytes, ALL)
    return end, leaf


@register_jitable(error_model="numpy")
def split_one(item, list_bytes, compared, children, end, leaf, compress_table):
    """Append the children of an item to the next level and to the leaves; return the new ends.

    Both places are written by the same stores, whose address is selected: nothing to predict. A child
    without pixels is written too, and overwritten by the next one.
    """
    packet = load_u32(item) & PACKET_BITS
    low, high = load_u32(item + list_bytes), load_u32(item + 2 * list_bytes)
    below_low, below_high = load_u32(compared), load_u32(compared + BATCH_BYTES)
    for side in range(2):
        child = load_u32(children + 4 * side)
        child_low = low & (below_low if side == 0 else ~below_low)
        child_high = high & (below_high if side == 0 else ~below_high)
        is_leaf = child > LARGEST_INNER_CODE
        place = leaf if is_leaf else end
        store_u32(place, child | packet)
        store_u32(place + list_bytes, child_low)
        store_u32(place + 2 * list_bytes, child_high)
        step = ITEM_BYTES if child_low | child_high else 0
        leaf += step if is_leaf else 0
        end += 0 if is_leaf else step
    return end, leaf
