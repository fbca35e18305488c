"""Runs a network once, far from the daemon, before it may be used: in a process with limits, on zeros."""

from __future__ import annotations

import os
from dataclasses import asdict

from segmentd.errors import Reason, SegmentdError
from segmentd.models.network_model import NetworkModel
from segmentd.workers import WorkerPool

MEMORY_BYTES = 12 << 30  # of address space, of which the runtime takes far more than it uses
DEADLINE_SECONDS = 60.0
_FAILURES = {
    Reason.WORKER_CRASHED: "crashed",
    Reason.WORKER_DEADLINE: f"was not done after {DEADLINE_SECONDS:g} seconds",
    Reason.WORKER_MEMORY: "needs more memory than a network may use",
}


def run(model: NetworkModel, deadline_seconds: float = DEADLINE_SECONDS) -> None:
    """Compute one batch of empty tiles in a worker process.

    Raises
    ------
    SegmentdError
        MODEL_UNUSABLE saying how it failed; MISSING_EXTRA.
    """
    name = model.card.display_name
    with WorkerPool(1, MEMORY_BYTES, deadline_seconds) as pool:
        fd = os.memfd_create("segmentd-network", os.MFD_CLOEXEC)
        try:
            with os.fdopen(fd, "wb", closefd=False) as file:
                file.write(model.network)
            pool.call("segmentd.compute.network:trial", asdict(model.spec), [fd], subject=name)
        except SegmentdError as error:
            how = _FAILURES.get(error.reason)
            if how is None:
                raise
            raise SegmentdError(
                Reason.MODEL_UNUSABLE,
                f"model '{name}': its trial run {how}; export the network again, with smaller tiles",
            ) from error
        finally:
            os.close(fd)
