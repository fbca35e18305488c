"""Image files, each with a model, one after the other to the daemon: the common part of submit and batch."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from segmentctl.cli.connection import fail, note

if TYPE_CHECKING:
    from segmentctl.client import Client
    from segmentctl.upload import OnProgress
    from segmentd.v1.segmentation_service_pb2 import Segmentation


class Confidence(StrEnum):
    """What the confidence shall be after a conditional random field."""

    MAP = "map"
    MARGINAL = "marginal"


@dataclass(frozen=True, slots=True)
class Job:
    """An image, with what and how to segment it, and the folder for its results (its own if None)."""

    image: Path
    model: str
    out: Path | None = None
    min_confidence: int = 0
    postprocessing: str = ""
    confidence: Confidence = Confidence.MAP
    priority: int = 0
    deadline: float | None = None

    @property
    def stem(self) -> Path:
        """Folder and name of the results, without their endings."""
        return (self.out or self.image.parent) / self.image.name


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: its result, or why it failed."""

    job: Job
    summary: Segmentation | None = None
    files: list[Path] = field(default_factory=list)
    failure: str = ""


def repeated_target(jobs: Sequence[Job]) -> Path | None:
    """Give the first place that the results of several jobs would be written to."""
    targets = Counter(os.path.normcase(job.stem.absolute()) for job in jobs)
    return next((job.stem for job in jobs if targets[os.path.normcase(job.stem.absolute())] > 1), None)


def run_all(client: Client, jobs: Sequence[Job]) -> list[Outcome]:
    """Segment all images, with a progress bar on stderr; one that fails does not stop the rest."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    outcomes = []
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(jobs))
        for done, job in enumerate(jobs):
            progress.update(task, completed=done, description=job.image.name)

            def advance(pixels: int, total: int, done: int = done) -> None:
                progress.update(task, completed=done + pixels / total)

            outcomes.append(_run(client, job, advance))
    return outcomes


def tell(outcomes: Sequence[Outcome], as_json: bool) -> None:
    """Print what became of each image, and end with exit code 1 if one failed."""
    if as_json:
        typer.echo(json.dumps([_fields(outcome) for outcome in outcomes], indent=2))
    else:
        _show(outcomes)
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        note(f"{outcome.job.image}: {outcome.failure}")
    if failed:
        fail(f"{len(failed)} of {len(outcomes)} images failed.")


def _run(client: Client, job: Job, on_progress: OnProgress) -> Outcome:
    from segmentctl.cli.saving import save_planes
    from segmentctl.errors import DaemonError
    from segmentd.imagefile import SegmentdError, read_simple

    try:
        result = client.segment_plane(
            read_simple(job.image),
            job.model,
            min_confidence=job.min_confidence,
            postprocessing=job.postprocessing,
            confidence=job.confidence.value,
            priority=job.priority,
            deadline=job.deadline,
            on_progress=on_progress,
        )
        files = save_planes(job.stem, result.summary.classes, result.labels, result.confidence)
    except (DaemonError, SegmentdError, OSError, ValueError) as error:
        return Outcome(job, failure=str(error))
    return Outcome(job, result.summary, files)


def _fields(outcome: Outcome) -> dict[str, object]:
    from segmentctl.cli.messages import as_dict

    job = {
        name: str(value) if isinstance(value, Path) else value for name, value in asdict(outcome.job).items()
    }
    return {
        **job,
        "succeeded": not outcome.failure,
        "error": outcome.failure,
        "files": [str(path) for path in outcome.files],
        "segmentation": as_dict(outcome.summary) if outcome.summary is not None else None,
    }


def _show(outcomes: Sequence[Outcome]) -> None:
    from segmentctl.cli.tables import show

    columns = ("image", "model", "size", "classes", "confidence", "took", "device")
    show(columns, [_row(outcome) for outcome in outcomes])


def _row(outcome: Outcome) -> tuple[str, ...]:
    from segmentctl.cli.messages import seconds_text, shares_text

    job, summary = outcome.job, outcome.summary
    if summary is None:
        return (str(job.image), job.model, "", "", "", "", "failed")
    return (
        str(job.image),
        job.model,
        f"{summary.height} x {summary.width}",
        shares_text(summary),
        f"{summary.mean_confidence:.1f} %",
        seconds_text(summary.compute_duration.ToTimedelta().total_seconds()),
        summary.device,
    )
