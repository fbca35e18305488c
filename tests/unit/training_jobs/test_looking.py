"""What a model in work makes of an image that is smaller than the largest scene of its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pylibCZIrw import czi

from segmentd.engine.lane import CpuLane
from segmentd.engine.scheduler import Scheduler
from segmentd.records import ClassInfo, PlaneIndex
from segmentd.training_jobs import taking_in
from segmentd.training_jobs.looking import Looker
from segmentd.training_jobs.project import Result, Training
from segmentd.training_jobs.store import TrainingStore
from segmentd.workers import WorkerPool

from ..tiny_model import save

CLASSES = (ClassInfo(1, "dark", "#000000"), ClassInfo(2, "bright", "#FFFFFF"))


@pytest.mark.asyncio
async def test_what_fills_up_a_scene_is_no_part_of_the_image(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 255, (40, 50, 1), np.uint8)
    store, lane = TrainingStore(tmp_path / "training"), CpuLane(1)
    staged = store.staged_path(".czi")
    with czi.create_czi(str(staged)) as writer:
        writer.write(np.zeros((90, 100, 1), np.uint8), location=(0, 0), scene=0)
        writer.write(small, location=(500, 0), scene=1)
    with WorkerPool(1) as pool:
        training = store.create(Training("cells", "Cells", classes=CLASSES))
        new = taking_in.look_at_image(pool, staged, "cells.czi", PlaneIndex(scene=1), training)
        training = store.add_image(training, staged, new)
        save(store.model_path(training))
        training = replace(training, result=Result("", 0, 0.0, {}))
        seen = await Looker(store, pool, lane, Scheduler()).look(training, training.images[0])
    lane.close()
    assert seen.labels.shape == seen.confidence.shape == (90, 100)
    assert set(np.unique(seen.labels[:40, :50])) <= {1, 2}
    assert not seen.labels[40:].any()
    assert not seen.labels[:, 50:].any()
    assert sum(seen.counts) == 40 * 50
    found = seen.uncertain(20, 10)
    assert found
    assert all(region.y + region.height <= 40 and region.x + region.width <= 50 for region, _ in found)
