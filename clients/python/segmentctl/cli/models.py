"""`segmentctl models`: which models there are, and which stay in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.connection import connected
from segmentctl.cli.listing import AsJson, id_of, print_json, show

if TYPE_CHECKING:
    from segmentd.v1.model_service_pb2 import Model

app = typer.Typer(help="Look up models, and say which stay in memory.", no_args_is_help=True)

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Id or display name of the model.")]


@app.command("list")
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List all models with state, classes and the images that they take."""
    with connected(context) as client:
        models = list(client.models())
    if as_json:
        print_json(models)
        return
    columns = ("model", "name", "state", "features", "images", "classes", "device")
    show(columns, [_model_row(model) for model in models], empty="No models.")


@app.command("load")
def load_model(context: typer.Context, name: ModelName) -> None:
    """Bring a model into memory, so that the first image does not wait for it."""
    with connected(context) as client:
        model = client.load_model(name)
    typer.echo(f"{id_of(model.name)} is loaded on {model.device or 'the daemon'}.")


@app.command("unload")
def unload_model(context: typer.Context, name: ModelName) -> None:
    """Let go of a model's memory."""
    with connected(context) as client:
        model = client.unload_model(name)
    typer.echo(f"{id_of(model.name)} is unloaded.")


@app.command("postprocessings")
def list_postprocessings(context: typer.Context, as_json: AsJson = False) -> None:
    """List what can be done to class probabilities before labels are decided."""
    with connected(context) as client:
        found = client.postprocessings()
    if as_json:
        print_json(found)
        return
    columns = ("name", "", "computed by", "what it does")
    rows = [(each.name, each.display_name, each.implementation, each.description) for each in found]
    show(columns, rows, empty="None.")


def _model_row(model: Model) -> tuple[str, ...]:
    from segmentctl.cli.messages import enum_text, with_reason

    state = enum_text(model, "state")
    channels = "1 channel" if model.channel_count == 1 else f"{model.channel_count} channels"
    known = model.channel_count > 0  # a file that cannot be read tells nothing
    return (
        id_of(model.name),
        model.display_name,
        with_reason(state, model.state_reason),
        model.feature_set or model.kind,
        f"{enum_text(model, 'pixel_type')}, {channels}" if known else "",
        ", ".join(entry.display_name for entry in model.classes),
        model.device,
    )
