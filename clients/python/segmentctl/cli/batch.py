"""`segmentctl batch`: many images with different models in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segmentctl.cli import jobs
from segmentctl.cli.connection import connected
from segmentctl.cli.listing import AsJson


def batch(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", dir_okay=False, help="A list of images: .csv or .toml, see below."),
    ],
    as_json: AsJson = False,
) -> None:
    """Segment the images of a list, each with its own model, in one run.

    An image that fails does not stop the rest; the exit code is 1 then.

    The list is a CSV file with the columns image and model, and if you like out, min_confidence,
    postprocessing and confidence, which are as the options of submit. Or it is a TOML file with these keys in
    tables of an array named job; what comes before the first of them holds for all.

    Paths are relative to the list, and image may be a pattern such as plate/*.tif.
    """
    from segmentctl.cli.batch_file import BatchFileError, read_jobs

    try:
        todo = read_jobs(file)
    except BatchFileError as error:
        raise typer.BadParameter(str(error), param_hint="FILE") from error
    repeated = jobs.repeated_target(todo)
    if repeated is not None:
        raise typer.BadParameter(
            f"{file}: several results would be written to {repeated}.labels.ome.tif; give them different "
            "folders as out",
            param_hint="FILE",
        )
    with connected(context) as client:
        client.server()  # a daemon that is not there is said once, not for every image
        outcomes = jobs.run_all(client, todo)
    jobs.tell(outcomes, as_json)
