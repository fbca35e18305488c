"""The kernels: one for each kind of processor, all with the same results.

Each is one function for numba to compile and to keep on disk; only what is called is compiled.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

from numba import njit
from numba.extending import register_jitable

from segmentd.compute.packets.distributions import label_by_distributions, score_by_distributions
from segmentd.compute.packets.masks import GROUP, compare_halves
from segmentd.compute.packets.votes import label_by_votes, score_by_votes
from segmentd.compute.packets.walk import BATCH, split_one, walk_group
from segmentd.compute.packets.x86 import (
    AVX2_LANES,
    AVX512_LANES,
    compare_avx2,
    split_avx2,
    split_avx512,
)


@register_jitable(error_model="numpy")
def _run(job, compare, split, lanes, by_votes, by_distributions):
    """Take all packets through the forest; returns how many items were compared, by which the time goes."""
    visits = 0
    lines = job.packet_bytes // 64
    for first in range(0, job.packets, GROUP):
        count = min(GROUP, job.packets - first)
        leaves, group_visits = walk_group(job, first, count, lines, compare, split, lanes)
        if job.pure:
            by_votes(job, first, count, leaves)
        else:
            by_distributions(job, first, count, leaves)
        visits += group_visits
        # The next group is about as much work: spread its cache lines over as many batches.
        lines = count * job.packet_bytes // 64 * BATCH // max(group_visits, 1) + 1
    return visits


@njit(nogil=True, cache=True, error_model="numpy")
def label_avx512(job):
    """Labels and confidence on x86 with AVX-512: vectors can be compressed."""
    return _run(job, compare_halves, split_avx512, AVX512_LANES, label_by_votes, label_by_distributions)


@njit(nogil=True, cache=True, error_model="numpy")
def score_avx512(job):
    """Scores on x86 with AVX-512."""
    return _run(job, compare_halves, split_avx512, AVX512_LANES, score_by_votes, score_by_distributions)


@njit(nogil=True, cache=True, error_model="numpy")
def label_avx2(job):
    """Labels and confidence on x86 with AVX2."""
    return _run(job, compare_avx2, split_avx2, AVX2_LANES, label_by_votes, label_by_distributions)


@njit(nogil=True, cache=True, error_model="numpy")
def score_avx2(job):
    """Scores on x86 with AVX2."""
    return _run(job, compare_avx2, split_avx2, AVX2_LANES, score_by_votes, score_by_distributions)


@njit(nogil=True, cache=True, error_model="numpy")
def label_simd(job):
    """Labels and confidence on any processor with vectors of 128 bits: NEON, SSE."""
    return _run(job, compare_halves, split_one, 1, label_by_votes, label_by_distributions)


@njit(nogil=True, cache=True, error_model="numpy")
def score_simd(job):
    """Scores on any processor with vectors of 128 bits."""
    return _run(job, compare_halves, split_one, 1, score_by_votes, score_by_distributions)
