"""`segmentctl submit`: segment image files from here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segmentctl.cli import jobs
from segmentctl.cli.connection import connected
from segmentctl.cli.jobs import Confidence, Job
from segmentctl.cli.listing import AsJson


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
    priority: Annotated[
        int, typer.Option(min=-1000, max=1000, help="Of those that wait, higher numbers go first.")
    ] = 0,
    deadline: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.001, help="Give an image up that is not done by then."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send images to the daemon and write NAME.labels.ome.tif and NAME.confidence.ome.tif.

    An image that fails does not stop the rest; the exit code is 1 then.
    """
    options = (model, out, min_confidence, postprocessing, confidence, priority, deadline)
    todo = [Job(image, *options) for image in images]
    repeated = jobs.repeated_target(todo)
    if repeated is not None:
        raise typer.BadParameter(
            f"several images would be written to {repeated}.labels.ome.tif; submit them one by one to "
            "different folders",
            param_hint="IMAGE...",
        )
    with connected(context) as client:
        client.model(model)  # a wrong name is said once, not for every image
        outcomes = jobs.run_all(client, todo)
    jobs.tell(outcomes, as_json)
