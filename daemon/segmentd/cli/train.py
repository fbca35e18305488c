"""`segmentd train`: folders of images and sparse labels to one model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    from segmentd.models.bundle import Model
    from segmentd.records import ClassInfo


def train(
    images: Annotated[Path, typer.Option(help="Folder of images (TIFF, OME-TIFF, PNG, JPEG).")],
    labels: Annotated[
        Path,
        typer.Option(
            help="Folder of label images, matched by name: 0 = unlabelled, 1, 2, ... = class. "
            "A few strokes in each class are enough."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model file to write (FILE.segmodel).")],
    features: Annotated[
        str,
        typer.Option(
            help="Feature set: basic25 or basic33 (filters, fast); deep64, deep128, deep256, deep50 or "
            "deep70 (a trained network's, slow: extra 'deep' and weights of VGG19)."
        ),
    ] = "basic25",
    normalization: Annotated[
        str,
        typer.Option(
            help="none, or percentile: scale each channel of each plane from its 1st and 99th percentile "
            "(for images whose brightness differs from one to the next)."
        ),
    ] = "none",
    classes: Annotated[
        Path | None, typer.Option(help='TOML file of [[class]] value, name, color = "#RRGGBB".')
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Train on this one channel, by name or by position from 0.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Display name of the model; default: the name of the file.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random forest.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all cores.")] = None,
    device: Annotated[
        str,
        typer.Option(
            help="What trains the forest: cpu; cuda (an NVIDIA card through the extra 'cuml', the CPU where "
            "that fails, which is said); or auto (a card where there is one). Features are the CPU's."
        ),
    ] = "cpu",
    vgg19_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of VGG19 for deep features (.h5, from Keras); default: what Keras has cached. "
            "Nothing is downloaded.",
        ),
    ] = None,
) -> None:
    """Train a model from sparse labels and write it as one file.

    Prints how well the model predicts labelled pixels it did not see (out-of-bag), what it confuses,
    and which features mattered.
    """
    with exits.reported():
        _train(
            images,
            labels,
            out,
            features,
            normalization,
            classes,
            channel,
            name,
            seed,
            threads,
            device,
            vgg19_weights,
        )


def _train(
    images: Path,
    labels: Path,
    out: Path,
    features: str,
    normalization: str,
    classes: Path | None,
    channel: str | None,
    name: str | None,
    seed: int,
    threads: int | None,
    device: str,
    vgg19_weights: Path | None,
) -> None:
    from segmentd.cli import show
    from segmentd.cli.classes_file import read_classes
    from segmentd.compute.features import feature_sets
    from segmentd.compute.normalize import METHODS
    from segmentd.models import bundle
    from segmentd.models.training import DEVICES
    from segmentd.settings.values import usable_cores
    from segmentd.training_jobs import TrainingRequest, match_pairs, train_model
    from segmentd.workers import WorkerPool

    exits.require_choice("--features", features, feature_sets())
    exits.require_choice("--normalization", normalization, METHODS)
    exits.require_choice("--device", device, DEVICES)
    if out.suffix != bundle.SUFFIX:
        raise exits.UsageError(f"--out {out}: a model file ends in {bundle.SUFFIX}")
    pairs, unlabelled = match_pairs(images, labels)
    for path in unlabelled:
        show.note(f"{path.name}: has no labels, skipped")
    named: tuple[ClassInfo, ...] | None = read_classes(classes) if classes else None
    request = TrainingRequest(
        pairs,
        name or out.name.removesuffix(bundle.SUFFIX),
        features,
        normalization,
        named,
        channel,
        seed,
        threads or usable_cores(),
        vgg19_weights=str(vgg19_weights or ""),
        device=device,
    )
    with show.progress("images", len(pairs)) as step, WorkerPool(1) as pool:
        trained = train_model(request, pool, lambda what, done, total: step(done, what))
    model = trained.model
    if trained.device_reason:
        show.note(trained.device_reason)
    out.parent.mkdir(parents=True, exist_ok=True)
    bundle.save(model, out)
    _print_scores(model, trained.device, out)


def _print_scores(model: Model, device: str, out: Path) -> None:
    from segmentd.cli import show
    from segmentd.models.training import CPU

    card, scores = model.card, model.card.scores
    confusion = scores["out_of_bag_confusion"]
    names = [entry.name for entry in card.classes]
    rows = []
    for entry, row, count in zip(card.classes, confusion, scores["labelled_pixels"], strict=True):
        right = f"{100 * row[entry.value - 1] / sum(row):.1f} %" if sum(row) else "-"
        rows.append([f"{entry.value}", entry.name, entry.color, f"{count:,}", right, *map(str, row)])
    show.table(
        "Out-of-bag confusion: rows are labels, columns what the model says",
        ["label", "class", "colour", "labelled pixels", "right", *names],
        rows,
    )
    accuracy = scores["out_of_bag_accuracy"]
    if accuracy is not None:
        show.line(f"out-of-bag accuracy: {100 * accuracy:.2f} % of labelled pixels")
    best = sorted(scores["feature_importance"].items(), key=lambda item: -item[1])[:5]
    if device != CPU:
        show.line(f"trained on: {device}")
    show.line("most useful features: " + ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in best))
    show.line(
        f"wrote {out} (model '{card.id}', {card.feature_set}, {card.channel_count} channel(s) "
        f"{card.pixel_type}, border {card.border_px} px, digest {card.digest[:12]})"
    )
