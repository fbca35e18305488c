"""`segmentctl models`: which models there are, what each of them is, and which stay in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.connection import connected
from segmentctl.cli.listing import AsJson, id_of, print_json, show

if TYPE_CHECKING:
    from segmentd.v1.model_service_pb2 import Model, Verification

app = typer.Typer(help="Look up models, take them in, change them, and go back.", no_args_is_help=True)

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Id or display name of the model.")]


@app.command("list")
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List all models with state, classes and the images that they take."""
    with connected(context) as client:
        models = list(client.models())
    if as_json:
        print_json(models)
        return
    columns = ("model", "name", "version", "state", "features", "images", "classes", "used by", "device")
    show(columns, [_model_row(model) for model in models], empty="No models.")


@app.command("show")
def show_model(context: typer.Context, name: ModelName, as_json: AsJson = False) -> None:
    """Show everything about a model: settings, classes, scores, who uses it."""
    with connected(context) as client:
        model = client.model(name)
    if as_json:
        print_json(model)
        return
    show(("", ""), [(f"{what}:", value) for what, value in _facts(model)])
    if model.scores.confusion:
        from segmentctl.cli.scores import show_scores

        show_scores(model.scores, model.classes)


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


@app.command("features")
def list_features(context: typer.Context, as_json: AsJson = False) -> None:
    """List the feature sets that a model can be trained on."""
    with connected(context) as client:
        sets = client.feature_sets()
    if as_json:
        print_json(sets)
        return
    rows = [
        (each.name, str(each.feature_count), f"{each.reach_pixels} px", each.description) for each in sets
    ]
    show(("features", "number", "reach", "what they are"), rows)


def _model_row(model: Model) -> tuple[str, ...]:
    from segmentctl.cli.messages import enum_text, with_reason

    state = enum_text(model, "state")
    channels = "1 channel" if model.channel_count == 1 else f"{model.channel_count} channels"
    known = model.channel_count > 0  # a file that cannot be read tells nothing
    return (
        id_of(model.name),
        model.display_name,
        str(model.version),
        with_reason(state, model.state_reason),
        model.feature_set or model.kind,
        f"{enum_text(model, 'pixel_type')}, {channels}" if known else "",
        ", ".join(entry.display_name for entry in model.classes),
        ", ".join(id_of(watch) for watch in model.watches),
        model.device,
    )


def _facts(model: Model) -> list[tuple[str, str]]:
    from segmentctl.cli.messages import enum_text, with_reason

    border = f"{model.border_pixels} px"
    if model.original_border_pixels != model.border_pixels:
        border += f" (made with {model.original_border_pixels} px)"
    made = model.create_time.ToDatetime().isoformat(" ", "seconds") if model.HasField("create_time") else ""
    facts = [
        ("model", id_of(model.name)),
        ("name", model.display_name),
        ("description", model.description),
        ("version", f"{model.version}, {model.size_bytes / 2**20:.1f} MiB"),
        ("state", with_reason(enum_text(model, "state"), model.state_reason)),
        ("device", model.device),
        ("kind", " ".join(part for part in (model.kind, model.feature_set) if part)),
        ("images", f"{enum_text(model, 'pixel_type')}, {', '.join(model.channels)}"),
        ("normalization", model.normalization),
        ("border", border),
        ("post-processing", model.postprocessing),
        ("classes", ", ".join(f"{c.value} {c.display_name} {c.color}" for c in model.classes)),
        ("used by", ", ".join(id_of(watch) for watch in model.watches)),
        ("training", id_of(model.training)),
        ("made", made),
        ("digest", model.digest),
        ("VGG19 weights", model.weights_sha256),
        ("verified", verdict_text(model.verification) if model.HasField("verification") else ""),
    ]
    return [(what, value) for what, value in facts if value]


def verdict_text(found: Verification) -> str:
    """Whether all devices gave the same labels, and what each of them did."""
    shares = ((one.name, one.fault or f"{100 * one.equal_share:.4f} % equal") for one in found.devices)
    devices = ", ".join(f"{name}: {share}" for name, share in shares)
    when = found.verify_time.ToDatetime().strftime("%Y-%m-%d %H:%M UTC")
    what = "the same labels" if found.agrees else "NOT the same labels"
    return f"{what} as {found.compared_with} ({when}) - {devices}"
