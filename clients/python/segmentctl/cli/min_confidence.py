"""`segmentctl min-confidence`: a minimum confidence for results that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segmentctl.cli.connection import fail


def min_confidence(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Labels, or one channel for each class, as TIFF or PNG.")
    ],
    confidence: Annotated[
        Path, typer.Argument(metavar="CONFIDENCE", help="The confidence map of the same image, in percent.")
    ],
    threshold: Annotated[
        float, typer.Argument(metavar="THRESHOLD", min=0, max=100, help="Percent; labels below it become 0.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", dir_okay=False, help="Where to write (OME-TIFF).")],
) -> None:
    """Take labels away where the model was not sure, without the image and without the daemon.

    All planes of a result file are done, and what it says of classes and pixel size is kept.
    """
    from segmentctl.confidence import SegmentdError, minimum_confidence

    try:
        minimum_confidence(labels, confidence, threshold, out)
    except (SegmentdError, ValueError, OSError) as error:
        fail(str(error))
    typer.echo(f"{out} is written.")
