"""What keeps a benchmark from giving a result."""

from __future__ import annotations


class BenchmarkError(Exception):
    """The benchmark cannot be done as asked or was not completed; the message says why and what to do."""
