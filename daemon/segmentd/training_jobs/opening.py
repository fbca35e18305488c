"""Puts the parts of trainings together."""

from __future__ import annotations

from pathlib import Path

from segmentd.engine.lanes import Lane
from segmentd.engine.scheduler import Scheduler
from segmentd.models.library import Library
from segmentd.models.registry import Registry
from segmentd.models.training import CPU
from segmentd.settings.values import usable_cores
from segmentd.training_jobs.looking import Looker
from segmentd.training_jobs.running import Runner
from segmentd.training_jobs.store import TrainingStore
from segmentd.training_jobs.trainings import Trainings
from segmentd.workers import WorkerPool


def open_trainings(
    folder: Path,
    pool: WorkerPool,
    lane: Lane,
    scheduler: Scheduler,
    registry: Registry,
    vgg19_weights: Path | None = None,
    device: str = CPU,
) -> Trainings:
    """The trainings of a folder.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    pool, lane, scheduler, registry
        What decodes, segments, says who may, and has the models.
    vgg19_weights : Path, optional
        File of weights for deep features; None for what Keras has cached.
    device : str
        What trains forests, one of `segmentd.models.training.DEVICES`.
    """
    store = TrainingStore(folder)
    runner = Runner(store, max(1, usable_cores() // 2), str(vgg19_weights or ""), device)
    return Trainings(store, pool, Looker(store, pool, lane, scheduler), runner, Library(registry))
