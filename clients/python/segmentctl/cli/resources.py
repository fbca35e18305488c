"""`segmentctl status`, `models` and `watch`: what the daemon has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.connection import connected

if TYPE_CHECKING:
    from segmentd.v1.model_service_pb2 import Model
    from segmentd.v1.server_service_pb2 import Server
    from segmentd.v1.watch_service_pb2 import Watch

models_app = typer.Typer(help="Look up models, and say which stay in memory.", no_args_is_help=True)
watch_app = typer.Typer(help="Look up watched folders.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (proto3 JSON with proto field names).")]
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Id or display name of the model.")]


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show version, devices, load and journal of the daemon."""
    with connected(context) as client:
        server = client.server()
    if as_json:
        _print_json(server)
    else:
        _show(("", ""), [(f"{name}:", value) for name, value in _status_rows(client.address, server)])


@models_app.command("list")
def list_models(context: typer.Context, as_json: AsJson = False) -> None:
    """List all models with state, classes and the images that they take."""
    with connected(context) as client:
        models = list(client.models())
    if as_json:
        _print_json_list(models)
        return
    columns = ("model", "name", "state", "features", "images", "classes", "device")
    _show(columns, [_model_row(model) for model in models], empty="No models.")


@models_app.command("load")
def load_model(context: typer.Context, name: ModelName) -> None:
    """Bring a model into memory, so that the first image does not wait for it."""
    with connected(context) as client:
        model = client.load_model(name)
    typer.echo(f"{_id(model.name)} is loaded on {model.device or 'the daemon'}.")


@models_app.command("unload")
def unload_model(context: typer.Context, name: ModelName) -> None:
    """Let go of a model's memory."""
    with connected(context) as client:
        model = client.unload_model(name)
    typer.echo(f"{_id(model.name)} is unloaded.")


@models_app.command("postprocessings")
def list_postprocessings(context: typer.Context, as_json: AsJson = False) -> None:
    """List what can be done to class probabilities before labels are decided."""
    from segmentctl.cli.messages import list_text

    with connected(context) as client:
        found = client.postprocessings()
    if as_json:
        typer.echo(list_text(found))
        return
    rows: list[tuple[str, ...]] = [
        (each.name, each.display_name, each.implementation, each.description) for each in found
    ]
    _show(("name", "", "computed by", "what it does"), rows)


@watch_app.command("list")
def list_watches(context: typer.Context, as_json: AsJson = False) -> None:
    """List all watches with state and counts of images."""
    with connected(context) as client:
        watches = list(client.watches())
    if as_json:
        _print_json_list(watches)
        return
    columns = ("watch", "state", "folder", "model", "noticed by", "done", "failed", "waiting")
    _show(columns, [_watch_row(watch) for watch in watches], empty="No watches.")


def _status_rows(address: str, server: Server) -> list[tuple[str, str]]:
    from segmentctl.cli.messages import seconds_text

    rows = [
        ("address", address),
        ("version", server.version),
        ("running for", seconds_text(server.uptime.ToTimedelta().total_seconds())),
    ]
    for device in server.devices:
        reason = f" - {device.reason}" if device.reason else ""
        threads = "1 thread" if device.thread_count == 1 else f"{device.thread_count} threads"
        rows.append(("device", f"{device.name}, {device.display_name}, {threads}{reason}"))
    return [
        *rows,
        ("planes in work", str(server.planes_in_flight)),
        ("subscribers", str(server.subscriber_count)),
        ("last event", str(server.last_event_number)),
        ("oldest cursor", server.oldest_cursor),
        ("journal", server.journal_id),
    ]


def _model_row(model: Model) -> tuple[str, ...]:
    from segmentctl.cli.messages import enum_text

    state = enum_text(model, "state")
    channels = "1 channel" if model.channel_count == 1 else f"{model.channel_count} channels"
    known = model.channel_count > 0  # a file that cannot be read tells nothing
    return (
        _id(model.name),
        model.display_name,
        f"{state}: {model.state_reason}" if model.state_reason else state,
        model.feature_set or model.kind,
        f"{enum_text(model, 'pixel_type')}, {channels}" if known else "",
        ", ".join(entry.display_name for entry in model.classes),
        model.device,
    )


def _watch_row(watch: Watch) -> tuple[str, ...]:
    from segmentctl.cli.messages import enum_text

    state, mode = enum_text(watch, "state"), enum_text(watch, "mode")
    return (
        _id(watch.name),
        f"{state}: {watch.state_reason}" if watch.state_reason else state,
        watch.folder_display,
        _id(watch.model),
        f"{mode}: {watch.mode_reason}" if watch.mode_reason else mode,
        str(watch.done_count),
        str(watch.failed_count),
        str(watch.waiting_count),
    )


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _show(columns: tuple[str, ...], rows: list[tuple[str, ...]], empty: str = "") -> None:
    from segmentctl.cli.tables import show

    show(columns, rows, empty=empty)


def _print_json(server: Server) -> None:
    import json

    from segmentctl.cli.messages import as_dict

    typer.echo(json.dumps(as_dict(server), indent=2))


def _print_json_list(messages: list[Model] | list[Watch]) -> None:
    from segmentctl.cli.messages import list_text

    typer.echo(list_text(messages))
