"""`segmentctl watch`: look up, make, change, pause and delete watched folders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segmentctl.cli.connection import connected
from segmentctl.cli.listing import AsJson, id_of, print_json, show

if TYPE_CHECKING:
    from segmentd.v1.watch_service_pb2 import Watch

app = typer.Typer(help="Look up, make, change, pause and delete watched folders.", no_args_is_help=True)

WatchId = Annotated[str, typer.Argument(metavar="ID", help="Id of the watch.")]
Etag = Annotated[str, typer.Option(help="Act only if the watch still has this etag (see show).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check only, and show what would be.")]

# The fields of a watch; None where an option is not given.
Include = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Take only such names, as *.tif; may be repeated."),
]
Recursive = Annotated[bool | None, typer.Option("--recursive/--flat", help="Watch subfolders too, or not.")]
Results = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder for results; default: FOLDER/segmented.")
]
Outputs = Annotated[
    list[str] | None,
    typer.Option("--output", metavar="KIND", help="labels, confidence, classes, overlay, thumbnail."),
]
Settle = Annotated[float | None, typer.Option(help="Seconds of quiet after which a file counts as complete.")]
GiveUp = Annotated[float | None, typer.Option(help="Seconds after which an incomplete file fails.")]
Poll = Annotated[str | None, typer.Option(help="Poll the folder: auto, always, never.")]
PollSeconds = Annotated[float | None, typer.Option(help="Seconds between looks where it is polled.")]
Rescan = Annotated[float | None, typer.Option(help="Seconds between looks at the whole folder.")]
Existing = Annotated[str | None, typer.Option(help="Files that are there already: process, ignore.")]
MinConfidence = Annotated[int | None, typer.Option(help="Labels below this confidence in percent become 0.")]
PixelSizeTolerance = Annotated[
    float | None, typer.Option(help="Largest difference of pixel sizes, image to model, as a share.")
]
Confidence = Annotated[str | None, typer.Option(help="Confidence with crf: map, marginal.")]
Border = Annotated[int | None, typer.Option(help="Overlap around tiles in pixels.")]
Tile = Annotated[int | None, typer.Option(help="Edge of a tile in pixels.")]
Postprocessing = Annotated[str | None, typer.Option(help="Before labels are decided: none, crf.")]
WithImage = Annotated[
    bool | None, typer.Option("--with-image/--without-image", help="Image channels before the classes.")
]
DriftAlarm = Annotated[
    bool | None, typer.Option(help="Warn when images begin to look different from those before.")
]
AsItGrows = Annotated[
    bool | None,
    typer.Option("--as-it-grows/--when-complete", help="Segment planes of stacks while these are written."),
]
ResultsFormat = Annotated[str | None, typer.Option(help="Format of results: ome-tiff, ome-zarr, czi.")]
LabelsInside = Annotated[
    bool | None,
    typer.Option("--labels-inside/--labels-beside", help="Labels of an OME-Zarr 0.5 go into it."),
]
Compression = Annotated[str | None, typer.Option(help="Of results: deflate, zstd.")]
Priority = Annotated[int | None, typer.Option(help="Watches with a higher number go first.")]
MarkerFile = Annotated[
    str | None, typer.Option(metavar="NAME", help="File that must be in the folder (a mounted share).")
]
After = Annotated[str | None, typer.Option(help="What happens to images that are done: keep, move:DIR.")]


@app.command("list")
def list_watches(context: typer.Context, as_json: AsJson = False) -> None:
    """List all watches with state and counts of images."""
    with connected(context) as client:
        watches = list(client.watches())
    if as_json:
        print_json(watches)
        return
    columns = ("watch", "state", "folder", "model", "noticed by", "done", "failed", "waiting")
    show(columns, [_row(watch) for watch in watches], empty="No watches.")


@app.command("show")
def show_watch(context: typer.Context, watch: WatchId, as_json: AsJson = False) -> None:
    """Show everything about a watch."""
    with connected(context) as client:
        found = client.watch(watch)
    _show(found, as_json)


@app.command("create")
def create_watch(
    context: typer.Context,
    watch: WatchId,
    folder: Annotated[str, typer.Option(metavar="DIR", help="Folder to watch, on the daemon's machine.")],
    model: Annotated[str, typer.Option(help="Id or display name of the model.")],
    results: Results = None,
    include: Include = None,
    recursive: Recursive = None,
    outputs: Outputs = None,
    with_image: WithImage = None,
    results_format: ResultsFormat = None,
    labels_inside: LabelsInside = None,
    compression: Compression = None,
    settle_seconds: Settle = None,
    give_up_seconds: GiveUp = None,
    poll: Poll = None,
    poll_seconds: PollSeconds = None,
    rescan_seconds: Rescan = None,
    existing: Existing = None,
    min_confidence: MinConfidence = None,
    confidence: Confidence = None,
    pixel_size_tolerance: PixelSizeTolerance = None,
    border: Border = None,
    tile: Tile = None,
    postprocessing: Postprocessing = None,
    drift_alarm: DriftAlarm = None,
    as_it_grows: AsItGrows = None,
    priority: Priority = None,
    marker_file: MarkerFile = None,
    after: After = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Watch a folder from now on, also after a restart of the daemon.

    What is not given gets the default that README lists for watches.
    """
    fields = _fields(context)
    with connected(context) as client:
        made = client.create_watch(watch, validate_only=dry_run, **fields)
    if dry_run:
        _show(made, as_json)
    else:
        _tell(made, as_json, f"{watch} watches {made.folder_display}.")


@app.command("update")
def update_watch(
    context: typer.Context,
    watch: WatchId,
    model: Annotated[str | None, typer.Option(help="Id or display name of the model.")] = None,
    results: Results = None,
    include: Include = None,
    recursive: Recursive = None,
    outputs: Outputs = None,
    with_image: WithImage = None,
    results_format: ResultsFormat = None,
    labels_inside: LabelsInside = None,
    compression: Compression = None,
    settle_seconds: Settle = None,
    give_up_seconds: GiveUp = None,
    poll: Poll = None,
    poll_seconds: PollSeconds = None,
    rescan_seconds: Rescan = None,
    existing: Existing = None,
    min_confidence: MinConfidence = None,
    confidence: Confidence = None,
    pixel_size_tolerance: PixelSizeTolerance = None,
    border: Border = None,
    tile: Tile = None,
    postprocessing: Postprocessing = None,
    drift_alarm: DriftAlarm = None,
    as_it_grows: AsItGrows = None,
    priority: Priority = None,
    marker_file: MarkerFile = None,
    after: After = None,
    default: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Take this key back to its default, as tile; may be repeated."),
    ] = None,
    etag: Etag = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Change a watch that was made here. Images in work are finished in the old way."""
    fields = _fields(context)
    for key in default or []:
        fields[key.replace("-", "_")] = None
    _require_known(fields)
    with connected(context) as client:
        changed = client.update_watch(watch, etag=etag, validate_only=dry_run, **fields)
    if dry_run:
        _show(changed, as_json)
    else:
        _tell(changed, as_json, f"{watch} is changed.")


@app.command("pause")
def pause_watch(context: typer.Context, watch: WatchId, etag: Etag = "", as_json: AsJson = False) -> None:
    """Take up no more images until resume, also after a restart. Images in work are finished."""
    with connected(context) as client:
        paused = client.pause_watch(watch, etag=etag)
    _tell(paused, as_json, f"{watch} is paused.")


@app.command("resume")
def resume_watch(context: typer.Context, watch: WatchId, etag: Etag = "", as_json: AsJson = False) -> None:
    """Take up images again, first those that came meanwhile."""
    with connected(context) as client:
        resumed = client.resume_watch(watch, etag=etag)
    _tell(resumed, as_json, f"{watch} goes on.")


@app.command("delete")
def delete_watch(context: typer.Context, watch: WatchId, etag: Etag = "") -> None:
    """Stop watching a folder for good. Images, results and the journal's history stay."""
    with connected(context) as client:
        client.delete_watch(watch, etag=etag)
    typer.echo(f"{watch} is deleted; its images, results and history stay.")


def _fields(context: typer.Context) -> dict[str, Any]:
    """Give the fields of a watch among the options that were given."""
    others = {"watch", "default", "etag", "dry_run", "as_json"}
    fields = {
        name: value
        for name, value in context.params.items()
        if name not in others and value not in (None, [], ())
    }
    for name in fields.keys() & {"folder", "results"}:
        if os.name == "posix":  # elsewhere it cannot be the daemon's machine
            fields[name] = os.path.abspath(fields[name])  # noqa: PTH100  # links stay as they are
    return fields


def _require_known(fields: dict[str, Any]) -> None:
    from segmentctl.watch_fields import WatchChanges

    if not fields:
        raise typer.BadParameter("nothing to change; give at least one option")
    known = WatchChanges.__annotations__
    for name in fields.keys() - known.keys():
        raise typer.BadParameter(f"{name} is none of {', '.join(known)}", param_hint="--default")


def _tell(watch: Watch, as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(watch)
    else:
        typer.echo(sentence)


def _show(watch: Watch, as_json: bool) -> None:
    from segmentctl.cli.messages import as_dict, enum_text, field_text

    if as_json:
        print_json(watch)
        return
    hidden = {"name", "folder", "results_folder", "state_reason", "mode_reason"}
    texts = {name: field_text(value) for name, value in as_dict(watch).items() if name not in hidden}
    texts |= {"state": enum_text(watch, "state"), "mode": enum_text(watch, "mode")}
    rows = [("watch:", id_of(watch.name))]
    for name, text in texts.items():
        reason = {"state": watch.state_reason, "mode": watch.mode_reason}.get(name, "")
        label = name.removesuffix("_display").replace("_", " ")
        rows.append((f"{label}:", f"{text}: {reason}" if reason else text))
    show(("", ""), rows)


def _row(watch: Watch) -> tuple[str, ...]:
    from segmentctl.cli.messages import enum_text, with_reason

    return (
        id_of(watch.name),
        with_reason(enum_text(watch, "state"), watch.state_reason),
        watch.folder_display,
        id_of(watch.model),
        with_reason(enum_text(watch, "mode"), watch.mode_reason),
        str(watch.done_count),
        str(watch.failed_count),
        str(watch.waiting_count),
    )
