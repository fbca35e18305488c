"""Which kernel this processor runs."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import cache

from llvmlite import binding
from numba import config

from segmentd.errors import Reason, SegmentdError

VARIABLE = "SEGMENTD_KERNEL"


class Kernel(StrEnum):
    """The ways to walk a forest, best first. All give the same results."""

    AVX512 = "avx512"
    AVX2 = "avx2"
    SIMD = "simd"
    PLAIN = "plain"


NEEDS = {
    Kernel.AVX512: {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    Kernel.AVX2: {"avx2"},
    Kernel.SIMD: set(),
    Kernel.PLAIN: set(),
}


def processor_features() -> set[str]:
    """LLVM's names of what the code may use, as numba sees it: `NUMBA_CPU_FEATURES` counts."""
    flags: str | None = config.CPU_FEATURES  # type: ignore[attr-defined]
    if flags is None:
        return {name for name, present in binding.get_host_cpu_features().items() if present}
    return {flag[1:] for flag in flags.split(",") if flag.startswith("+")}


def choose_kernel(wanted: str | None = None) -> Kernel:
    """The best kernel, or the one that is asked for.

    Parameters
    ----------
    wanted : str, optional
        A `Kernel`; without it the environment variable `SEGMENTD_KERNEL` is asked.

    Raises
    ------
    SegmentdError
        BAD_CONFIGURATION where there is no such kernel, or the processor lacks what it needs.
    """
    features = processor_features()
    wanted = wanted or os.environ.get(VARIABLE)
    if not wanted:
        return next(kernel for kernel in Kernel if NEEDS[kernel] <= features)
    if wanted not in list(Kernel):
        raise SegmentdError(
            Reason.BAD_CONFIGURATION,
            f"{VARIABLE} = {wanted!r}: must be one of {', '.join(Kernel)}; leave it out for the fastest",
        )
    missing = NEEDS[Kernel(wanted)] - features
    if missing:
        raise SegmentdError(
            Reason.BAD_CONFIGURATION,
            f"{VARIABLE} = {wanted}: this processor has no {', '.join(sorted(missing))}; leave it out",
        )
    return Kernel(wanted)


def runnable_kernels() -> list[Kernel]:
    """The kernels that this processor can run, the fastest first."""
    return [kernel for kernel in Kernel if NEEDS[kernel] <= processor_features()]


@cache
def can_be_compiled(kernel: Kernel) -> bool:
    """Whether LLVM can compile a kernel for this processor, be it slow.

    AVX2 code names instructions of that processor; what the other kernels name LLVM can spell out.
    """
    return kernel is not Kernel.AVX2 or NEEDS[kernel] <= processor_features()
