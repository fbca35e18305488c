"""Training in a process of its own: its memory, its crashes and its appetite stay there."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segmentd.models import bundle
from segmentd.records import ClassInfo, PlaneIndex
from segmentd.training_jobs.from_files import (
    Report,
    Trained,
    TrainingPair,
    TrainingRequest,
    train_model,
)
from segmentd.workers import WorkerPool

DEADLINE_SECONDS = 24 * 3600.0
# Of address space, of which a process takes more than it uses.
MEMORY_SHARE = 0.9
# The lanes have 0: they are served first wherever a core is wanted by both.
NICENESS = 10
TARGET = "segmentd.training_jobs.child:run"


class TrainingProcess:
    """One training that runs, and can be ended from any thread."""

    def __init__(self) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._pool = WorkerPool(1, max(4 << 30, int(memory * MEMORY_SHARE)), DEADLINE_SECONDS)
        self.cancelled = False

    def run(self, request: TrainingRequest, out: Path, report: Report) -> tuple[Trained, float]:
        """Train and write the model to `out`; returns it and the seconds it took. Blocks.

        Raises
        ------
        SegmentdError
            As `train_model`; SHUTTING_DOWN after `cancel`.
        """
        began = time.monotonic()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        listener = threading.Thread(target=_listen, args=(reading, report), name="training", daemon=True)
        listener.start()
        try:
            with self._pool as pool:
                args = {"request": _to_json(request), "out": str(out)}
                told = pool.call(TARGET, args, [writing], subject=request.display_name).value
        finally:
            os.close(writing)  # the listener then sees the end
            listener.join()
        seconds = time.monotonic() - began
        return Trained(bundle.load(out), told["device"], told["device_reason"]), seconds

    def cancel(self) -> None:
        """End the process."""
        self.cancelled = True
        self._pool.close()


def run(args: dict[str, Any], fds: list[int]) -> tuple[Any, list[Any]]:
    """Train in this process; progress goes to the first descriptor, a line of JSON each."""
    os.nice(NICENESS)
    request = _from_json(args["request"])

    def report(what: str, done: int, total: int) -> None:
        os.write(fds[0], (json.dumps([what, done, total]) + "\n").encode())

    with WorkerPool(1) as pool:
        trained = train_model(request, pool, report)
    report("writing", len(request.pairs), len(request.pairs))
    bundle.save(trained.model, Path(args["out"]))
    return {"device": trained.device, "device_reason": trained.device_reason}, []


def _listen(descriptor: int, report: Callable[[str, int, int], None]) -> None:
    with os.fdopen(descriptor, encoding="utf-8") as lines:
        for line in lines:
            what, done, total = json.loads(line)
            report(str(what), int(done), int(total))


def _to_json(request: TrainingRequest) -> dict[str, Any]:
    fields = asdict(request)
    fields["pairs"] = [
        {**pair, "image": str(pair["image"]), "labels": str(pair["labels"])} for pair in fields["pairs"]
    ]
    return fields


def _from_json(fields: dict[str, Any]) -> TrainingRequest:
    pairs = [
        TrainingPair(Path(pair["image"]), Path(pair["labels"]), PlaneIndex(**pair["plane"]), pair["name"])
        for pair in fields["pairs"]
    ]
    classes = tuple(ClassInfo(**entry) for entry in fields["classes"])
    return TrainingRequest(**{**fields, "pairs": pairs, "classes": classes})
