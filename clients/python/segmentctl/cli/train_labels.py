"""Images and labels of a training: add, remove, draw, look at, and where to label next."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.connection import connected, fail
from segmentctl.cli.listing import AsJson, id_of, print_json, show

if TYPE_CHECKING:
    from segmentctl.client import Client
    from segmentd.v1.training_service_pb2 import TrainingImage, UncertainRegion

TrainingId = Annotated[str, typer.Argument(metavar="ID", help="Id of the training.")]
ImageId = Annotated[str, typer.Argument(metavar="IMAGE", help="Id of the image in the training: i1, i2, ...")]
OnDaemon = Annotated[
    bool, typer.Option("--on-daemon", help="Files are named as on the daemon's machine and not sent.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `segmentctl train`."""
    for name, command in (
        ("add", add),
        ("remove", remove),
        ("labels", set_labels),
        ("mask", set_mask),
        ("export-labels", export_labels),
        ("segment", segment),
        ("suggest", suggest),
        ("to-labels", to_labels),
    ):
        app.command(name)(command)


def add(
    context: typer.Context,
    training: TrainingId,
    image: Annotated[str, typer.Argument(metavar="FILE", help="TIFF, PNG or JPEG file.")],
    labels: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Label image of the same size: 0 = unlabelled, 1, 2, ... = class."),
    ] = None,
    plane: Annotated[
        str, typer.Option(metavar="S,T,Z", help="Scene, time and z of the plane, for files with several.")
    ] = "0,0,0",
    on_daemon: OnDaemon = False,
    as_json: AsJson = False,
) -> None:
    """Add an image, and its labels if there are any."""
    try:
        scene, time, z = (int(part) for part in plane.split(","))
    except ValueError:
        raise typer.BadParameter(f"--plane {plane}: write three numbers, as 0,0,5") from None
    with connected(context) as client:
        added = client.add_training_image(training, _source(image, on_daemon), plane=(scene, time, z))
        if labels is not None:
            added = client.set_training_labels(added.name, _source(labels, on_daemon))
    _tell(added, as_json)


def remove(context: typer.Context, training: TrainingId, image: ImageId) -> None:
    """Remove an image and its labels."""
    with connected(context) as client:
        client.delete_training_image(_name(training, image))
    typer.echo(f"{image} is removed.")


def set_labels(
    context: typer.Context,
    training: TrainingId,
    image: ImageId,
    file: Annotated[str, typer.Argument(help="Label image: 0 = unlabelled, 1, 2, ... = class.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Draw over the labels that are there, rather than replace them.")
    ] = False,
    on_daemon: OnDaemon = False,
    as_json: AsJson = False,
) -> None:
    """Set the labels of an image."""
    with connected(context) as client:
        labelled = client.set_training_labels(_name(training, image), _source(file, on_daemon), merge=merge)
    _tell(labelled, as_json)


def set_mask(
    context: typer.Context,
    training: TrainingId,
    image: ImageId,
    value: Annotated[int, typer.Argument(min=1, max=255, help="Label of the class: 1, 2, ...")],
    file: Annotated[str, typer.Argument(help="Binary mask: not 0 where the class is.")],
    pixels: Annotated[
        int, typer.Option(min=0, help="Take only so many of its pixels, drawn at random; 0 for all.")
    ] = 0,
    on_daemon: OnDaemon = False,
    as_json: AsJson = False,
) -> None:
    """Replace the labels of one class by a binary mask of the same size."""
    with connected(context) as client:
        labelled = client.set_training_mask(
            _name(training, image), value, _source(file, on_daemon), pixel_count=pixels
        )
    _tell(labelled, as_json)


def export_labels(
    context: typer.Context,
    training: TrainingId,
    image: ImageId,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="TIFF file to write.")],
) -> None:
    """Write the labels of an image to a TIFF file, to draw on in another program."""
    with connected(context) as client:
        found = _image(client, training, image)
        labels = client.training_labels(found)
        classes = client.training(training).classes
    from segmentd.imagefile import ClassInfo, write_label_image

    write_label_image(out, labels, [ClassInfo(each.value, each.display_name, each.color) for each in classes])
    typer.echo(str(out))


def segment(
    context: typer.Context,
    training: TrainingId,
    image: ImageId,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Write labels and confidence there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """See what the model in work makes of an image, and where it is unsure."""
    with connected(context) as client:
        found = _image(client, training, image)
        seen = client.segment_training_image(found)
        classes = client.training(training).classes
    if out is not None:
        from segmentctl.cli.saving import save_planes

        save_planes(out / found.display_name, classes, seen.labels, seen.confidence)
    if as_json:
        print_json(seen.summary)
        return
    counts = seen.summary.label_pixel_counts
    shares = [
        (str(each.value), each.display_name, f"{100 * counts[each.value] / sum(counts):.1f} %")
        for each in classes
    ]
    show(("label", "class", "share"), shares)
    typer.echo(f"mean confidence: {seen.summary.mean_confidence:.1f} %")
    _show_regions(seen.summary.uncertain_regions)


def suggest(
    context: typer.Context,
    training: TrainingId,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many regions.")] = 5,
    size: Annotated[int, typer.Option(min=8, max=1024, help="Edge of a region in pixels.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Say where to label next: the regions that the model in work is least sure of."""
    with connected(context) as client:
        regions = client.suggest_training_regions(training, count, region_pixels=size)
    if as_json:
        print_json(regions)
    else:
        _show_regions(regions)


def to_labels(
    context: typer.Context,
    training: TrainingId,
    image: ImageId,
    value: Annotated[int, typer.Option("--class", min=0, max=255, help="Only this class; 0 for all.")] = 0,
    min_confidence: Annotated[
        int, typer.Option(min=0, max=100, help="Only pixels of at least this confidence in percent.")
    ] = 0,
    region: Annotated[str | None, typer.Option(metavar="Y,X,H,W", help="Only in this rectangle.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn what the model in work makes of an image into labels, where there are none yet."""
    box: tuple[int, int, int, int] | None = None
    if region is not None:
        try:
            y, x, height, width = (int(part) for part in region.split(","))
        except ValueError:
            raise typer.BadParameter(f"--region {region}: write four numbers, as 0,0,64,64") from None
        box = (y, x, height, width)
    with connected(context) as client:
        labelled = client.segmentation_to_labels(
            _name(training, image), value, min_confidence=min_confidence, region=box
        )
    _tell(labelled, as_json)


def _name(training: str, image: str) -> str:
    return f"trainings/{training}/images/{image}"


def _image(client: Client, training: str, image: str) -> TrainingImage:
    found = client.training(training)
    for each in found.images:
        if id_of(each.name) == image:
            return each
    known = ", ".join(id_of(each.name) for each in found.images) or "none"
    fail(f"training {training} has no image {image} (images: {known}).")


def _source(file: str, on_daemon: bool) -> Path | PurePosixPath:
    if on_daemon:
        return PurePosixPath(file)
    if not Path(file).is_file():
        fail(f"{file}: there is no such file.")
    return Path(file)


def _tell(image: TrainingImage, as_json: bool) -> None:
    if as_json:
        print_json(image)
        return
    counts = ", ".join(f"{value}: {count:,}" for value, count in enumerate(image.label_pixel_counts, 1))
    typer.echo(
        f"{id_of(image.name)}: {image.display_name}, {image.height} x {image.width}, labelled {counts}"
    )


def _show_regions(regions: Iterable[UncertainRegion]) -> None:
    rows = [
        (
            id_of(each.image),
            f"{each.region.y}, {each.region.x}",
            f"{each.region.height} x {each.region.width}",
            f"{each.mean_confidence:.1f} %",
        )
        for each in regions
    ]
    show(("label next in", "y, x", "size", "mean confidence"), rows, empty="It is sure everywhere.")
