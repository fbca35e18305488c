"""Trainings that wait for their turn, and are cancelled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from segmentd.errors import Reason, SegmentdError
from segmentd.records import ClassInfo
from segmentd.training_jobs import running
from segmentd.training_jobs.project import Training
from segmentd.training_jobs.running import Runner
from segmentd.training_jobs.store import TrainingStore

CLASSES = (ClassInfo(1, "dark", "#000000"), ClassInfo(2, "bright", "#FFFFFF"))


class Process:
    """Works until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = False
        self.begun = threading.Event()
        self._ended = threading.Event()

    def run(self, *args: Any) -> None:
        self.begun.set()
        assert self._ended.wait(20)
        raise SegmentdError(Reason.SHUTTING_DOWN, "ended")

    def cancel(self) -> None:
        self.cancelled = True
        self._ended.set()


async def test_a_training_that_waits_is_cancelled_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TrainingProcess", Process)
    monkeypatch.setattr(running, "request_for", lambda *args: None)
    monkeypatch.setattr(running, "replace", lambda request, **changes: request)
    store = TrainingStore(tmp_path)
    runner = Runner(store, 1)
    tasks: dict[str, asyncio.Task[Training]] = {}
    processes: dict[str, Any] = {}
    for name in ("first", "second", "third"):
        training = store.create(Training(name, name, classes=CLASSES))
        processes[name] = runner.claim(training)
        tasks[name] = asyncio.create_task(runner.run(training, processes[name], lambda *step: None))
    assert await asyncio.to_thread(processes["first"].begun.wait, 20)
    await asyncio.wait_for(runner.cancel("second"), 20)
    assert [runner.is_running(name) for name in tasks] == [True, False, True]
    tasks["third"].cancel()  # its client went away
    await asyncio.wait([tasks["third"]])
    assert not runner.is_running("third")
    await asyncio.wait_for(runner.cancel("first"), 20)
    assert not runner.is_running("first")
    for name in ("first", "second"):
        with pytest.raises(SegmentdError) as error:
            await tasks[name]
        assert error.value.reason is Reason.TRAINING_CANCELLED
    assert not processes["second"].begun.is_set()
    later: Any = runner.claim(store.get("second"))
    task = asyncio.create_task(runner.run(store.get("second"), later, lambda *step: None))
    assert await asyncio.to_thread(later.begun.wait, 20)
    await runner.close()
    with pytest.raises(SegmentdError):
        await task
