"""The kernels: one for each kind of processor, all with the same results.

Each is one function for numba to compile and to keep on disk; only what is called is compiled. It takes an
array of one job, which numba unpacks ten times faster than the job itself.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

from numba import njit
from numba.extending import register_jitable

from segmentd.compute.packets.distributions import finish_by_distributions
from segmentd.compute.packets.masks import GROUP, compare_halves
from segmentd.compute.packets.votes import finish_by_votes
from segmentd.compute.packets.walk import BATCH, CACHE_LINE, split_one, walk_group
from segmentd.compute.packets.x86 import (
    AVX2_LANES,
    AVX512_LANES,
    compare_avx2,
    split_avx2,
    split_avx512,
)


@njit(nogil=True, cache=True, error_model="numpy")
def run_avx512(jobs):
    """For x86 with AVX-512."""
    return _run(jobs[0], compare_halves, split_avx512, AVX512_LANES)


@njit(nogil=True, cache=True, error_model="numpy")
def run_avx2(jobs):
    """For x86 with AVX2."""
    return _run(jobs[0], compare_avx2, split_avx2, AVX2_LANES)


@njit(nogil=True, cache=True, error_model="numpy")
def run_simd(jobs):
    """For any processor with vectors of 128 bits: NEON, SSE."""
    return _run(jobs[0], compare_halves, split_one, 1)


@register_jitable(error_model="numpy")
def _run(job, compare, split, lanes):
    """Take all packets through the forest; returns how many items were compared, by which the time goes."""
    visits = 0
    lines = job.packet_bytes // CACHE_LINE
    for first in range(0, job.packets, GROUP):
        count = min(GROUP, job.packets - first)
        leaves, group_visits = walk_group(job, first, count, lines, compare, split, lanes)
        if job.pure:
            finish_by_votes(job, first, count, leaves)
        else:
            finish_by_distributions(job, first, count, leaves)
        visits += group_visits
        # The next group is about as much work: spread its cache lines over as many batches.
        lines = count * job.packet_bytes // CACHE_LINE * BATCH // max(group_visits, 1) + 1
    return visits
