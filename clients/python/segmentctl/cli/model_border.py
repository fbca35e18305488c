"""`segmentctl models border`: what a border costs and what it spares, and how it is changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.connection import connected, fail
from segmentctl.cli.listing import AsJson, id_of, print_json, show

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segmentctl.client import Client

REPEATS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """One border: seconds of the fastest of some runs, and how far labels are from the reference."""

    border_pixels: int
    seconds: float
    mpx_per_s: float
    differing_labels_percent: float
    largest_confidence_difference: int


def border(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Id or display name of the model.")],
    image: Annotated[
        Path | None, typer.Argument(metavar="[IMAGE]", help="With --try: the image to try borders on.")
    ] = None,
    sizes: Annotated[
        str | None, typer.Option("--try", metavar="N,N,...", help="Segment IMAGE with these borders.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=16, max=16384, help="With --try: edge of a tile in pixels.")
    ] = None,
    change: Annotated[
        int | None, typer.Option("--set", min=0, max=4096, help="Change the border to so many pixels.")
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Set the border back to what the model was made with.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the border of a model, try others on an image, change it, or set it back.

    A small border is faster, and leaves seams where tiles meet. --try shows both for each border: the speed,
    and how many labels differ from those with the largest of the given borders and that of the model.
    """
    if (sizes is None) != (image is None):
        raise typer.BadParameter("--try and IMAGE belong together")
    if (change is not None) + reset + (sizes is not None) > 1:
        raise typer.BadParameter("give one of --try, --set and --reset")
    with connected(context) as client:
        model = client.model(name)
        if sizes is not None and image is not None:
            _try(
                client,
                model.name,
                max(model.border_pixels, model.original_border_pixels),
                image,
                sizes,
                tile,
                as_json,
            )
            return
        if change is not None or reset:
            wanted = model.original_border_pixels if change is None else change
            model = client.update_model(name, border_pixels=wanted)
    if as_json:
        print_json(model)
        return
    typer.echo(
        f"{id_of(model.name)}: border {model.border_pixels} px, made with {model.original_border_pixels} px"
    )


def _try(
    client: Client, model: str, own: int, image: Path, sizes: str, tile: int | None, as_json: bool
) -> None:
    from segmentd.imagefile import SegmentdError, read_simple

    try:
        borders = sorted({int(size) for size in sizes.split(",")})
    except ValueError:
        raise typer.BadParameter(f"--try {sizes}: write numbers of pixels, as 0,16,32,64") from None
    try:
        pixels = read_simple(image)
    except SegmentdError as error:
        fail(str(error))
    trials = run_trials(client, model, pixels, borders, own, tile)
    if as_json:
        typer.echo(json.dumps([asdict(trial) for trial in trials], indent=2))
        return
    rows = [
        (
            f"{trial.border_pixels}{' (the model)' if trial.border_pixels == own else ''}",
            f"{trial.seconds:.3f} s",
            f"{trial.mpx_per_s:.1f}",
            f"{trial.differing_labels_percent:.4f} %",
            f"{trial.largest_confidence_difference} %",
        )
        for trial in trials
    ]
    show(("border px", "time", "Mpx/s", "labels that differ", "largest change of confidence"), rows)


def run_trials(
    client: Client,
    model: str,
    pixels: npt.NDArray[np.generic],
    borders: list[int],
    own: int,
    tile: int | None,
) -> list[Trial]:
    """Segment a plane with each border; the largest of them and the model's own is the reference."""
    import numpy as np

    reference = client.segment_plane(pixels, model, border_pixels=max(own, *borders), tile_pixels=tile)
    trials = []
    for size in borders:
        results = [
            client.segment_plane(pixels, model, border_pixels=size, tile_pixels=tile) for _ in range(REPEATS)
        ]
        seconds = min(each.summary.compute_duration.ToTimedelta().total_seconds() for each in results)
        differing = float(np.mean(results[0].labels != reference.labels))
        change = np.abs(results[0].confidence.astype(np.int16) - reference.confidence).max()
        speed = results[0].labels.size / 1e6 / seconds if seconds else 0.0
        trials.append(Trial(size, seconds, speed, 100 * differing, int(change)))
    return trials
