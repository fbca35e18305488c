"""`segmentctl train`: images with labels, and the model that is made of them, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli import train_labels
from segmentctl.cli.bars import steps_bar
from segmentctl.cli.connection import connected
from segmentctl.cli.listing import AsJson, id_of, print_json, show
from segmentctl.cli.models import list_features

if TYPE_CHECKING:
    from segmentd.v1.training_service_pb2 import Training

app = typer.Typer(
    help="Train models from images and labels that the daemon keeps: create, add, run, look, save.",
    no_args_is_help=True,
)
train_labels.add_to(app)

TrainingId = Annotated[str, typer.Argument(metavar="ID", help="Id of the training.")]
Value = Annotated[int, typer.Argument(min=1, max=255, help="Label of the class: 1, 2, ...")]


@app.command("list")
def list_trainings(context: typer.Context, as_json: AsJson = False) -> None:
    """List all trainings."""
    with connected(context) as client:
        trainings = list(client.trainings())
    if as_json:
        print_json(trainings)
        return
    columns = ("training", "name", "state", "features", "images", "labelled pixels", "right", "model")
    show(columns, [_row(training) for training in trainings], empty="No trainings.")


app.command("features")(list_features)


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the training, and of its model.")] = "",
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME[=#RRGGBB]", help="A class; give two or more, in order."),
    ] = None,
    training_id: Annotated[str, typer.Option("--id", help="Id; default: from the name.")] = "",
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="SOURCE", help="Copy images, labels and settings: trainings/ID or models/ID."
        ),
    ] = "",
    features: Annotated[str, typer.Option(help="Feature set, as `train features` lists them.")] = "",
    normalization: Annotated[str, typer.Option(help="none, or percentile.")] = "",
    channel: Annotated[str, typer.Option(help="The only channel to train on, by name or position.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random forest.")] = 0,
    description: Annotated[str, typer.Option(help="What the model is for.")] = "",
    postprocessing: Annotated[str, typer.Option(help="Default post-processing, as none.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a training: empty, or with a copy of the images and labels of another one or of a model."""
    pairs = [(text.partition("=")[0], text.partition("=")[2]) for text in classes or ()]
    with connected(context) as client:
        training = client.create_training(
            name,
            pairs,
            training_id=training_id,
            source=source,
            feature_set=features,
            normalization=normalization,
            channel=channel,
            seed=seed,
            description=description,
            postprocessing=postprocessing,
        )
    tell(training, as_json)


@app.command("show")
def show_training(context: typer.Context, training: TrainingId, as_json: AsJson = False) -> None:
    """Show settings, classes, images and scores of a training."""
    with connected(context) as client:
        found = client.training(training)
    tell(found, as_json)


@app.command("delete")
def delete(context: typer.Context, training: TrainingId) -> None:
    """Delete a training with its images and labels; a model that was saved stays."""
    with connected(context) as client:
        client.delete_training(training)
    typer.echo(f"{training} is deleted.")


@app.command("set")
def change_settings(
    context: typer.Context,
    training: TrainingId,
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    description: Annotated[str | None, typer.Option(help="New description.")] = None,
    features: Annotated[str | None, typer.Option(help="Another feature set.")] = None,
    normalization: Annotated[str | None, typer.Option(help="none, or percentile.")] = None,
    channel: Annotated[str | None, typer.Option(help="The only channel to train on; '' for all.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the random forest.")] = None,
    postprocessing: Annotated[str | None, typer.Option(help="Default post-processing, as none.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change settings of a training; run it again then."""
    given = {
        "display_name": name,
        "description": description,
        "feature_set": features,
        "normalization": normalization,
        "channel": channel,
        "seed": seed,
        "postprocessing": postprocessing,
    }
    with connected(context) as client:
        changed = client.update_training(
            training, **{key: value for key, value in given.items() if value is not None}
        )
    tell(changed, as_json)


@app.command("add-class")
def add_class(
    context: typer.Context,
    training: TrainingId,
    name: Annotated[str, typer.Argument(help="Name of the class.")],
    color: Annotated[str, typer.Option(metavar="#RRGGBB", help="Its colour; default: the next one.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add a class."""
    with connected(context) as client:
        tell(client.add_training_class(training, name, color), as_json)


@app.command("change-class")
def change_class(
    context: typer.Context,
    training: TrainingId,
    value: Value,
    name: Annotated[str, typer.Option(help="New name.")] = "",
    color: Annotated[str, typer.Option(metavar="#RRGGBB", help="New colour.")] = "",
    as_json: AsJson = False,
) -> None:
    """Rename or recolour a class."""
    with connected(context) as client:
        tell(client.update_training_class(training, value, name, color), as_json)


@app.command("delete-class")
def delete_class(context: typer.Context, training: TrainingId, value: Value, as_json: AsJson = False) -> None:
    """Delete a class and its labels; the labels of classes behind it move down by one."""
    with connected(context) as client:
        tell(client.delete_training_class(training, value), as_json)


@app.command("run")
def run(
    context: typer.Context,
    training: TrainingId,
    device: Annotated[
        str,
        typer.Option(
            help="What trains the forest: cpu, cuda (a graphics card; the CPU where that fails) or auto; "
            "default: what the daemon's configuration says."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Train, and show how well the model does; Ctrl-C cancels."""
    with connected(context) as client, steps_bar() as step:
        done = client.run_training(training, step, device=device)
    tell(done, as_json)


@app.command("cancel")
def cancel(context: typer.Context, training: TrainingId) -> None:
    """End a training that runs."""
    with connected(context) as client:
        client.cancel_training(training)
    typer.echo(f"{training} is cancelled.")


@app.command("save")
def save(
    context: typer.Context,
    training: TrainingId,
    model_id: Annotated[
        str, typer.Option("--model", metavar="ID", help="Id of the model; default: that of the last time.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make it a new version of a model of another training.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put the trained model into the models folder: a new model, or a new version of its own."""
    with connected(context) as client:
        model = client.save_training_model(training, model_id=model_id, overwrite=overwrite)
    if as_json:
        print_json(model)
    else:
        typer.echo(f"{id_of(model.name)} is saved as version {model.version} (digest {model.digest[:12]}).")


def tell(training: Training, as_json: bool) -> None:
    """Show a training as JSON, or as tables."""
    from segmentctl.cli.messages import enum_text, with_reason
    from segmentctl.cli.scores import show_scores

    if as_json:
        print_json(training)
        return
    facts = [
        ("training", id_of(training.name)),
        ("name", training.display_name),
        ("description", training.description),
        ("state", with_reason(enum_text(training, "state"), training.state_reason)),
        ("features", f"{training.feature_set}, normalization {training.normalization}, seed {training.seed}"),
        ("channel", training.channel),
        ("post-processing", training.postprocessing),
        ("trained on", with_reason(training.device, training.device_reason)),
        ("model", id_of(training.model)),
    ]
    show(("", ""), [(f"{what}:", value) for what, value in facts if value])
    classes = [
        (str(each.value), each.display_name, each.color, f"{_labelled(training, each.value):,}")
        for each in training.classes
    ]
    show(("label", "class", "colour", "labelled pixels"), classes)
    images = [
        (
            id_of(each.name),
            each.display_name,
            f"{each.height} x {each.width}",
            f"{sum(each.label_pixel_counts):,}",
        )
        for each in training.images
    ]
    show(("image", "file", "size", "labelled pixels"), images, empty="No images yet: segmentctl train add")
    if training.scores.confusion:
        show_scores(training.scores, training.classes)


def _labelled(training: Training, value: int) -> int:
    return sum(image.label_pixel_counts[value - 1] for image in training.images)


def _row(training: Training) -> tuple[str, ...]:
    from segmentctl.cli.messages import enum_text

    accuracy = f"{100 * training.scores.accuracy:.1f} %" if training.scores.HasField("accuracy") else ""
    return (
        id_of(training.name),
        training.display_name,
        enum_text(training, "state"),
        training.feature_set,
        str(len(training.images)),
        f"{sum(sum(image.label_pixel_counts) for image in training.images):,}",
        accuracy,
        id_of(training.model),
    )
