"""`segmentctl models import`, `export`, `update`, `clone`, `delete`, `versions` and `rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.bars import bytes_bar
from segmentctl.cli.connection import connected, fail, note
from segmentctl.cli.listing import AsJson, id_of, print_json, show

if TYPE_CHECKING:
    from segmentd.v1.model_service_pb2 import Model

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="Id or display name of the model.")]
_URLS = ("https://", "http://")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `segmentctl models`."""
    for name, command in (
        ("import", import_model),
        ("export", export_model),
        ("update", update_model),
        ("clone", clone_model),
        ("delete", delete_model),
        ("versions", list_versions),
        ("rollback", roll_back),
    ):
        app.command(name)(command)


def import_model(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="NAME.segmodel, or a network: .czann, .czseg, .czmodel, or .onnx with a .json beside it. Or "
            "the URL of one, with --sha256.",
        ),
    ],
    model_id: Annotated[str, typer.Option("--id", help="Id that the model gets; default: its own.")] = "",
    name: Annotated[str, typer.Option(help="Name that the model gets; default: its own.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make it a new version of the model with that id.")
    ] = False,
    sha256: Annotated[str, typer.Option(metavar="HEX", help="Checksum that the file must have.")] = "",
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Also fetch from http:// addresses, which are not encrypted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a model in. Nothing in the file is run; images in it become a training."""
    from tempfile import TemporaryDirectory

    if file.startswith(_URLS) and not sha256:
        raise typer.BadParameter("a file from the network needs --sha256, as its publisher gives it")
    with TemporaryDirectory() as folder, connected(context) as client:
        path = _fetched(file, sha256, Path(folder), allow_http) if file.startswith(_URLS) else Path(file)
        if not path.is_file():
            fail(f"{file}: there is no such file.")
        _check_sha256(path, sha256, file)
        with bytes_bar(path.name) as advance:
            model = client.import_model(
                path, model_id=model_id, display_name=name, overwrite=overwrite, on_bytes=advance
            )
    _tell(model, as_json, f"is imported as version {model.version}")
    if model.training and not as_json:
        typer.echo(f"Its images and labels are the training {id_of(model.training)}.")


def export_model(
    context: typer.Context,
    name: ModelName,
    out: Annotated[Path, typer.Option(metavar="PATH", help="File, or folder for it.")] = Path(),
    version: Annotated[int, typer.Option(min=0, help="An older version; default: the current one.")] = 0,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="Add the images and labels, to go on training elsewhere.")
    ] = False,
) -> None:
    """Give a model out as a file."""
    with connected(context) as client, bytes_bar(name) as advance:
        path = client.export_model(name, out, version=version, with_images=with_images, on_bytes=advance)
    typer.echo(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


def update_model(
    context: typer.Context,
    name: ModelName,
    display_name: Annotated[str | None, typer.Option("--name", help="New display name.")] = None,
    description: Annotated[str | None, typer.Option(help="New description.")] = None,
    class_names: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="VALUE=NAME", help="Rename a class, as 2=nucleus; may be repeated."),
    ] = None,
    colors: Annotated[
        list[str] | None,
        typer.Option("--color", metavar="VALUE=#RRGGBB", help="Recolour a class; may be repeated."),
    ] = None,
    postprocessing: Annotated[str | None, typer.Option(help="Default post-processing, as none.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change what a model is called, says of itself, or does by default. For the border see `border`."""
    names, changed = _by_value(class_names, "--class"), _by_value(colors, "--color")
    with connected(context) as client:
        classes = None
        if names or changed:
            before = client.model(name).classes
            unknown = sorted((names.keys() | changed.keys()) - {entry.value for entry in before})
            if unknown:
                raise typer.BadParameter(f"the model has no class {unknown[0]}")
            classes = [
                (names.get(entry.value, entry.display_name), changed.get(entry.value, entry.color))
                for entry in before
            ]
        model = client.update_model(
            name,
            display_name=display_name,
            description=description,
            classes=classes,
            postprocessing=postprocessing,
        )
    _tell(model, as_json, f"is changed, version {model.version}")


def clone_model(
    context: typer.Context,
    name: ModelName,
    display_name: Annotated[str, typer.Option("--name", help="Name of the copy.")] = "",
    model_id: Annotated[str, typer.Option("--id", help="Id of the copy; default: from its name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a second model with the same content, and a copy of its images and labels."""
    with connected(context) as client:
        model = client.clone_model(name, display_name, model_id=model_id)
    _tell(model, as_json, "is made")


def delete_model(
    context: typer.Context,
    name: ModelName,
    force: Annotated[bool, typer.Option("--force", help="Also if watches use it.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete its versions, too: it cannot be brought back.")
    ] = False,
) -> None:
    """Delete a model; `rollback` brings it back."""
    with connected(context) as client:
        model = client.model(name)
        client.delete_model(name, force=force, purge=purge)
    identity = id_of(model.name)
    typer.echo(f"{identity} is deleted.")
    if not purge:
        note(f"bring it back with: segmentctl models rollback {identity}")


def list_versions(context: typer.Context, name: ModelName, as_json: AsJson = False) -> None:
    """List the versions of a model that are kept, also of a deleted one (by its id)."""
    with connected(context) as client:
        versions = client.model_versions(name)
    if as_json:
        print_json(versions)
        return
    rows = [
        (
            f"{version.version}{' (current)' if version.current else ''}",
            version.create_time.ToDatetime().isoformat(" ", "seconds"),
            version.display_name,
            f"{version.border_pixels} px",
            f"{version.size_bytes / 2**20:.1f} MiB",
            version.digest[:12],
        )
        for version in versions
    ]
    show(("version", "made (UTC)", "name", "border", "size", "digest"), rows, empty="No versions.")


def roll_back(
    context: typer.Context,
    name: ModelName,
    to: Annotated[
        int, typer.Option("--to", min=0, help="The version to go back to; default: the one before.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Make an older version the current one, as a new version; bring back a deleted model."""
    with connected(context) as client:
        model = client.rollback_model(name, to)
    _tell(model, as_json, f"is as it was, as version {model.version}")


def _tell(model: Model, as_json: bool, what: str) -> None:
    if as_json:
        print_json(model)
    else:
        typer.echo(f"{id_of(model.name)} {what}.")


def _by_value(options: list[str] | None, option: str) -> dict[int, str]:
    """Texts by the label of their class, from VALUE=TEXT."""
    found = {}
    for text in options or ():
        value, equals, rest = text.partition("=")
        if not (equals and value.isascii() and value.isdecimal() and rest):
            raise typer.BadParameter(f"{option} {text}: write VALUE=TEXT, as 2=nucleus or 2=#00FF00")
        found[int(value)] = rest
    return found


def _check_sha256(path: Path, wanted: str, shown: str) -> None:
    from segmentctl.transfer import sha256_of

    if wanted and sha256_of(path) != wanted.lower():
        fail(f"{shown}: its SHA-256 is {sha256_of(path)}, not the one that was given; do not use it.")


def _fetched(url: str, sha256: str, folder: Path, allow_http: bool) -> Path:
    """Download a file that the user named; it is not looked into before its checksum is right."""
    from segmentctl.fetch import FetchError, fetch

    try:
        with bytes_bar(url) as advance:
            return fetch(url, sha256, folder, allow_http=allow_http, on_bytes=advance)
    except FetchError as error:
        fail(str(error))
