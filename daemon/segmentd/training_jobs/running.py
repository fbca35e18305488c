"""Training runs: one at a time, each in a process of its own, below the lanes in priority."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from segmentd import telemetry
from segmentd.errors import Reason, SegmentdError
from segmentd.models.bundle import SUFFIX
from segmentd.models.training import CPU
from segmentd.models.versions import sync
from segmentd.threads import end_of, to_its_end
from segmentd.training_jobs.child import TrainingProcess
from segmentd.training_jobs.from_files import Report, Trained, TrainingRequest
from segmentd.training_jobs.project import Result, Training
from segmentd.training_jobs.settings_of import request_for
from segmentd.training_jobs.store import TrainingStore

_log = telemetry.get_logger(__name__)


class Runner:
    """Runs trainings and knows which ones run.

    Parameters
    ----------
    store : TrainingStore
        Where the models in work go.
    threads : int
        Threads of a training; the lanes need the other cores.
    vgg19_weights : str
        File of weights for deep features; empty for what Keras has cached.
    device : str
        What trains forests, unless a caller says otherwise: one of `segmentd.models.training.DEVICES`.
    """

    def __init__(
        self, store: TrainingStore, threads: int, vgg19_weights: str = "", device: str = CPU
    ) -> None:
        self.faults: dict[str, str] = {}
        self._store = store
        self._threads = threads
        self._vgg19_weights = vgg19_weights
        self._device = device
        self._running: dict[str, TrainingProcess] = {}
        self._busy = False
        self._changed = asyncio.Condition()

    def is_running(self, training_id: str) -> bool:
        """Whether a training runs or waits for its turn."""
        return training_id in self._running

    def require_idle(self, training_id: str) -> None:
        """TRAINING_RUNNING where it runs."""
        if self.is_running(training_id):
            raise SegmentdError(
                Reason.TRAINING_RUNNING,
                f"training '{training_id}' is being trained; wait for its end, or cancel it",
                resource=f"trainings/{training_id}",
            )

    def claim(self, training: Training) -> TrainingProcess:
        """Mark a training as running, to be given to `run`; nothing may change it from now on."""
        self.require_idle(training.id)
        process = self._running[training.id] = TrainingProcess()
        self.faults.pop(training.id, None)
        return process

    async def run(
        self, training: Training, process: TrainingProcess, report: Report, device: str = ""
    ) -> Training:
        """Train and keep the model as the one in work; the one before stays if that fails.

        Parameters
        ----------
        training, process
            As claimed.
        report : callable
            Called in another thread with what is being done, steps done and in all.
        device : str
            What trains the forest; empty for that of the runner.

        Raises
        ------
        SegmentdError
            TRAINING_CANCELLED, BAD_TRAINING_DATA, or what reading an image raises.
        """
        staged = await asyncio.to_thread(self._store.staged_path, SUFFIX)
        try:
            report("waiting", 0, len(training.images))
            async with self._turn(training, process):
                request = request_for(training, self._store, self._threads)
                request = replace(request, vgg19_weights=self._vgg19_weights, device=device or self._device)
                trained, seconds = await self._trained(training.id, request, process, staged, report)
            return await asyncio.to_thread(self._keep, training, staged, trained, seconds)
        except SegmentdError as error:
            if process.cancelled:
                raise _cancelled(training) from error
            self.faults[training.id] = error.message
            raise
        finally:
            self._running.pop(training.id, None)
            try:
                await to_its_end(staged.unlink, missing_ok=True)
            finally:
                async with self._changed:
                    self._changed.notify_all()

    async def cancel(self, training_id: str) -> None:
        """End a training that runs or waits; it does neither any more when this returns."""
        process = self._running.get(training_id)
        if process is None:
            return
        await asyncio.to_thread(process.cancel)
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._running.get(training_id) is not process)

    async def close(self) -> None:
        """End all trainings."""
        for training_id in list(self._running):
            await self.cancel(training_id)

    @asynccontextmanager
    async def _turn(self, training: Training, process: TrainingProcess) -> AsyncIterator[None]:
        """Wait until no other training runs; TRAINING_CANCELLED where it was cancelled meanwhile."""
        async with self._changed:
            await self._changed.wait_for(lambda: process.cancelled or not self._busy)
            if process.cancelled:
                raise _cancelled(training)
            self._busy = True
        try:
            yield
        finally:
            self._busy = False
            async with self._changed:
                self._changed.notify_all()

    async def _trained(
        self,
        training_id: str,
        request: TrainingRequest,
        process: TrainingProcess,
        staged: Path,
        report: Report,
    ) -> tuple[Trained, float]:
        work = asyncio.ensure_future(asyncio.to_thread(process.run, request, staged, report))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await to_its_end(process.cancel)
            await end_of(work)
            if not work.cancelled() and work.exception() is None:
                _log.info("training was given up at its end", training=training_id)
            raise

    def _keep(self, training: Training, staged: Path, trained: Trained, seconds: float) -> Training:
        path = self._store.model_path(training)
        staged.replace(path)
        sync(path.parent)
        card = trained.model.card
        result = Result(
            card.digest, training.revision, seconds, card.scores, trained.device, trained.device_reason
        )
        return self._store.save(replace(self._store.get(training.id), result=result))


def _cancelled(training: Training) -> SegmentdError:
    return SegmentdError(
        Reason.TRAINING_CANCELLED, f"training '{training.id}' was cancelled", resource=training.name
    )
