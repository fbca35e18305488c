"""`segmentctl submit`: segment image files from here."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.connection import connected, fail, note

if TYPE_CHECKING:
    from segmentctl.client import Client
    from segmentctl.upload import OnProgress


class Confidence(StrEnum):
    """What the confidence shall be after a conditional random field."""

    MAP = "map"
    MARGINAL = "marginal"


@dataclass(frozen=True, slots=True)
class _How:
    """With what and how to segment, the same for all images."""

    model: str
    min_confidence: int
    postprocessing: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one image: a row of the table, and why it failed if it did."""

    image: Path
    size: str = ""
    shares: str = ""
    confidence: str = ""
    took: str = ""
    device: str = ""
    failure: str = ""


def submit(
    context: typer.Context,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="TIFF, PNG or JPEG files of one plane each.")
    ],
    model: Annotated[str, typer.Option(help="Id or display name of the model.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="Folder for results; by default that of the image."
        ),
    ] = None,
    min_confidence: Annotated[
        int, typer.Option(min=0, max=100, help="Labels below this confidence in percent become 0.")
    ] = 0,
    postprocessing: Annotated[
        str,
        typer.Option(
            help="none, or crf; `segmentctl models postprocessings` tells. Default: the model's own."
        ),
    ] = "",
    confidence: Annotated[
        Confidence, typer.Option(help="With crf: 100 everywhere (map), or its probability (marginal).")
    ] = Confidence.MAP,
) -> None:
    """Send images to the daemon and write NAME.labels.ome.tif and NAME.confidence.ome.tif.

    An image that fails does not stop the rest; the exit code is 1 then.
    """
    _refuse_same_names(images, out)
    with connected(context) as client:
        client.model(model)  # a wrong name is said once, not for every image
        how = _How(model, min_confidence, postprocessing, confidence)
        outcomes = _segment_all(client, images, out, how)
    _show(outcomes)
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        note(f"{outcome.image}: {outcome.failure}")
    if failed:
        fail(f"{len(failed)} of {len(outcomes)} images failed.")


def _refuse_same_names(images: list[Path], out: Path | None) -> None:
    targets = Counter(os.path.normcase(_stem(image, out)) for image in images)
    repeated = sorted(target for target, times in targets.items() if times > 1)
    if repeated:
        raise typer.BadParameter(
            f"several images would be written to {repeated[0]}.labels.ome.tif; submit them one by one to "
            "different folders",
            param_hint="IMAGE...",
        )


def _segment_all(client: Client, images: list[Path], out: Path | None, how: _How) -> list[_Outcome]:
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
        task = progress.add_task("", total=len(images))
        for done, image in enumerate(images):
            progress.update(task, completed=done, description=image.name)

            def advance(pixels: int, total: int, done: int = done) -> None:
                progress.update(task, completed=done + pixels / total)

            outcomes.append(_segment_one(client, image, out, how, advance))
    return outcomes


def _segment_one(
    client: Client, image: Path, out: Path | None, how: _How, on_progress: OnProgress
) -> _Outcome:
    from segmentctl.cli.messages import seconds_text, shares_text
    from segmentctl.cli.saving import save_planes
    from segmentctl.errors import DaemonError
    from segmentd.imagefile import SegmentdError, read_simple

    try:
        pixels = read_simple(image)
        result = client.segment_plane(
            pixels,
            how.model,
            min_confidence=how.min_confidence,
            postprocessing=how.postprocessing,
            confidence=how.confidence.value,
            on_progress=on_progress,
        )
        save_planes(_stem(image, out), result.summary.classes, result.labels, result.confidence)
    except (DaemonError, SegmentdError, OSError, ValueError) as error:
        return _Outcome(image, failure=str(error))
    summary = result.summary
    return _Outcome(
        image,
        f"{summary.height} x {summary.width}",
        shares_text(summary),
        f"{summary.mean_confidence:.1f} %",
        seconds_text(summary.compute_duration.ToTimedelta().total_seconds()),
        summary.device,
    )


def _stem(image: Path, out: Path | None) -> Path:
    return (out or image.parent) / image.name


def _show(outcomes: list[_Outcome]) -> None:
    from segmentctl.cli.tables import show

    rows = [
        (str(each.image), each.size, each.shares, each.confidence, each.took, each.device or "failed")
        for each in outcomes
    ]
    show(("image", "size", "classes", "confidence", "took", "device"), rows)
