"""Runs the conditional random field: by pydensecrf in worker processes, or by our own code in this one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol

from segmentd import telemetry
from segmentd.compute import crf
from segmentd.compute.postprocessing import PYDENSECRF, crf_implementation
from segmentd.workers import WorkerPool, wire

# A window of a million pixels takes a second or two for each few classes.
DEADLINE_SECONDS = 300.0


class Marginals(Protocol):
    """Runs the field, here or elsewhere; see `Refiner.marginals`."""

    @property
    def marginals(self) -> Callable[[crf.Window, crf.Parameters], crf.Floats]:
        """Marginal probability of each class."""


class Refiner:
    """Class probabilities to those after the field, for several threads at once.

    Parameters
    ----------
    size : int
        Windows at the same time.
    implementation : str, optional
        `pydensecrf`, or another word for our own code; by default what is installed.
    """

    def __init__(self, size: int, implementation: str | None = None) -> None:
        self._size = size
        self._outside = (implementation or crf_implementation()) == PYDENSECRF
        self._lock = threading.Lock()
        self._pool: WorkerPool | None = None

    def marginals(self, window: crf.Window, parameters: crf.Parameters) -> crf.Floats:
        """Marginal probability of each class: float32 (K, h, w).

        Raises
        ------
        SegmentdError
            What became of the worker process.
        """
        with telemetry.stage("crf"):
            if self._outside:
                return self._ask(window, parameters)
            return crf.infer(window, parameters)

    def _ask(self, window: crf.Window, parameters: crf.Parameters) -> crf.Floats:
        arrays, memory = wire.pack_arrays([window.scores, window.guide])
        fds = [] if memory is None else [memory]
        try:
            reply = self._workers().call(
                "segmentd.compute.crf_pydensecrf:run",
                {"arrays": arrays, "place": [window.y, window.x], "parameters": parameters.as_dict()},
                fds,
                DEADLINE_SECONDS,
                "conditional random field",
            )
        finally:
            for fd in fds:
                os.close(fd)
        return reply.arrays[0]

    def _workers(self) -> WorkerPool:
        """The workers, made when they are first needed."""
        with self._lock:
            if self._pool is None:
                self._pool = WorkerPool(self._size)
            return self._pool

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()


def infer_here(window: crf.Window, parameters: crf.Parameters) -> crf.Floats:
    """Run the field in this process by what is installed; pydensecrf holds the interpreter meanwhile."""
    if crf_implementation() != PYDENSECRF:
        return crf.infer(window, parameters)
    from segmentd.compute import crf_pydensecrf

    return crf_pydensecrf.infer(window, parameters)
