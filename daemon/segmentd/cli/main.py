"""The command `segmentd`. Modules of subcommands are light: what they need is imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer

import segmentd
from segmentd.cli import (
    check_config,
    demo,
    doctor,
    exits,
    inspect_images,
    rebuild_journal,
    run,
    segment,
    train,
    verify,
)

app = typer.Typer(
    name="segmentd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # faster, and "[[watch]]" in a help text is not markup
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("segment")(segment.segment)
app.command("inspect")(inspect_images.inspect)
app.command("verify")(verify.verify)
app.command("doctor")(doctor.doctor)
app.command("check-config")(check_config.check_config)
app.command("rebuild-journal")(rebuild_journal.rebuild_journal)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segmentd {segmentd.__version__}")
        raise typer.Exit


@app.callback()
def _segmentd(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Segment microscope images as they arrive, with models trained from a few strokes."""


def main() -> None:
    """Run the command line; the process ends with an exit code of `segmentd.cli.exits`."""
    with exits.reported():
        app()
