"""`segmentd segment`: the daemon's pipeline on files, without a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    from segmentd.engine.lane import CpuLane
    from segmentd.models.registry import Lease
    from segmentd.records import Segmentation, SegmentOptions
    from segmentd.segmentation import Target
    from segmentd.workers import WorkerPool

FORMATS = {"labels": ("labels", "confidence"), "multichannel": ("classes", "confidence")}


def segment(
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", metavar="IMAGE")],
    model: Annotated[
        str,
        typer.Option(
            help="Model file (.segmodel, .czann, .czseg, .czmodel, .onnx), or id or name of one in --models."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    models: Annotated[
        Path | None, typer.Option(help="Folder of models; default: the models folder of the daemon.")
    ] = None,
    border: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=4096,
            help="Border of a tile in pixels; default: as far as the model looks. Less leaves seams.",
        ),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=16, max=16384, help="Edge of a tile in pixels, without its border.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all cores.")] = None,
    min_confidence: Annotated[
        int, typer.Option(min=0, max=100, help="Labels below this confidence in percent become 0.")
    ] = 0,
    format: Annotated[
        str,
        typer.Option(help="labels: one channel, 1, 2, ... = class; multichannel: one 0/255 channel a class."),
    ] = "labels",
    with_image: Annotated[
        bool,
        typer.Option("--with-image", help="With multichannel: the image's own channels in front, one file."),
    ] = False,
    postprocessing: Annotated[
        str | None,
        typer.Option(
            help="none, or crf: a conditional random field removes specks and sharpens borders. "
            "Default: the model's own."
        ),
    ] = None,
    confidence: Annotated[
        str, typer.Option(help="With crf: map (100 everywhere), or marginal (the probability after it).")
    ] = "map",
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write a PNG of classes over image.")
    ] = False,
    thumbnail: Annotated[
        bool, typer.Option("--thumbnail", help="Also write that picture small, at most 512 pixels.")
    ] = False,
    compression: Annotated[
        str | None,
        typer.Option(
            help="deflate (any reader) or zstd (smaller). Default: deflate in OME-TIFF, zstd in the others."
        ),
    ] = None,
    results_format: Annotated[
        str,
        typer.Option(
            help="ome-tiff, ome-zarr (a folder for each result; needs the extra zarr), or czi (needs the "
            "extra czi)."
        ),
    ] = "ome-tiff",
    pixel_size_tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="Refuse images whose pixel size differs from the model's by more than this share."
        ),
    ] = None,
    keep_paths: Annotated[
        bool, typer.Option("--keep-paths", help="Mirror the given paths below --out.")
    ] = False,
    vgg19_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of VGG19 for models of deep features (.h5, from Keras); default: what Keras "
            "has cached.",
        ),
    ] = None,
) -> None:
    """Segment images with a model: writes labels and confidence of each as OME-TIFF, OME-Zarr or CZI.

    An image that fails is reported and does not stop the rest; the exit code is 1 then.
    """
    with exits.reported():
        exits.require_choice("--format", format, FORMATS)
        exits.require_choice("--postprocessing", postprocessing or "none", ("none", "crf"))
        exits.require_choice("--confidence", confidence, ("map", "marginal"))
        if confidence == "marginal" and postprocessing != "crf":
            raise exits.UsageError("--confidence marginal needs --postprocessing crf")
        if with_image and format != "multichannel":
            raise exits.UsageError("--with-image needs --format multichannel")
        how = {
            "border_px": border,
            "tile_px": tile,
            "min_confidence": min_confidence,
            "postprocessing": postprocessing,
            "confidence": confidence,
            "pixel_size_tolerance": pixel_size_tolerance,
        }
        exits.require_choice("--results-format", results_format, ("ome-tiff", "ome-zarr", "czi"))
        if compression is not None:
            exits.require_choice("--compression", compression, ("deflate", "zstd"))
        if (compression, results_format) == ("deflate", "czi"):
            raise exits.UsageError("--results-format czi always has --compression zstd")
        pictures = {"overlay": overlay, "thumbnail": thumbnail}
        outputs = (*FORMATS[format], *(kind for kind, wanted in pictures.items() if wanted))
        device = (threads, "", vgg19_weights)
        form = (with_image, compression, results_format)
        failed = _segment(images, model, out, models, how, device, outputs, form, keep_paths)
    if failed:
        raise typer.Exit(exits.ExitCode.FAILED)


def _segment(
    images: list[Path],
    model: str,
    out: Path,
    models: Path | None,
    how: dict[str, Any],
    device: tuple[int | None, str, Path | None],
    outputs: tuple[str, ...],
    written: tuple[bool, str | None, str],
    keep_paths: bool,
) -> int:
    from segmentd.cli import show
    from segmentd.cli.inputs import find_model, named_inputs
    from segmentd.engine.lane import CpuLane
    from segmentd.errors import SegmentdError
    from segmentd.models.registry import Lease
    from segmentd.records import ResultForm, SegmentOptions
    from segmentd.segmentation import Target
    from segmentd.workers import WorkerPool

    with_image, compression, container = written
    inputs = named_inputs(images, keep_paths)
    path = find_model(model, models)
    rows: list[list[str]] = []
    failed = 0
    lane = CpuLane(*device)
    with WorkerPool(1) as pool, show.progress("images", len(inputs)) as step:
        lease = Lease(path, lane.load(path))
        for number, (image, relative) in enumerate(inputs):
            step(number, image.name)
            form = ResultForm(compression, container)
            target = Target(out, relative, outputs, with_image, form, image.absolute())
            try:
                records = _one(image, lease, lane, SegmentOptions(**how), target, pool)
            except SegmentdError as error:
                failed += 1
                show.note(
                    f"failed: {error.message}"
                    if str(image) in error.message
                    else f"failed: {image}: {error.message}"
                )
            else:
                rows.append(_row(image, records))
        step(len(inputs), "")
    lane.close()
    if rows:
        names = [entry.name for entry in lease.card.classes]
        shares = [*(f"{name} %" for name in names), "confidence %"] if names else []
        columns = ["image", "planes", "size", *shares, "device", "s"]
        show.table(f"{len(rows)} image(s) segmented into {out}", columns, rows)
    if failed:
        show.note(f"{failed} of {len(inputs)} image(s) failed")
    return failed


def _one(
    image: Path,
    lease: Lease,
    lane: CpuLane,
    options: SegmentOptions,
    target: Target,
    pool: WorkerPool,
) -> list[Segmentation]:
    from segmentd.ingest.readers import open_image
    from segmentd.segmentation import segment_image

    with open_image(pool, image) as opened:
        return segment_image(opened, lease, lane, options, target)


def _row(image: Path, records: list[Segmentation]) -> list[str]:
    first = records[0]
    pixels = sum(record.height * record.width for record in records)
    classes = len(first.classes)
    counts = [sum(record.label_pixel_counts[value] for record in records) for value in range(1, classes + 1)]
    mean = sum(record.mean_confidence for record in records) / len(records)
    seconds = sum(record.compute_seconds for record in records)
    size = f"{first.width} x {first.height}"
    shares = [*(f"{100 * count / pixels:.1f}" for count in counts), f"{mean:.1f}"] if classes else []
    return [image.name, str(len(records)), size, *shares, first.device, f"{seconds:.2f}"]
