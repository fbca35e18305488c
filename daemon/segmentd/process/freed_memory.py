"""Memory that was freed is kept for a while, so that messages do not need fresh pages all the time."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Where glibc comes to by itself once a large plane was freed; until then it gives a mebibyte back at once.
KEPT_BYTES = 32 << 20


def keep_freed_memory() -> None:
    """Have the C library keep up to 32 MiB of freed memory; another one than glibc is left as it is.

    A block on its way to a subscriber is copied five times into memory of a mebibyte each. With fresh pages
    for every one of them, sending costs three times the CPU time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
