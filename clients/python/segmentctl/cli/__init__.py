"""The command line `segmentctl`. Nothing heavier than typer is imported before a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segmentctl.cli import (
    batch,
    here,
    min_confidence,
    model_border,
    model_changes,
    models,
    status,
    submit,
    tail,
    top,
    train,
    watch,
    zen_bridge,
)
from segmentctl.cli.connection import Connection

app = typer.Typer(
    name="segmentctl",
    help="Talk to segmentd: look after models and watches, follow results, segment images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _common(
    context: typer.Context,
    address: Annotated[
        str,
        typer.Option(
            envvar="SEGMENTCTL_ADDRESS",
            help="Where the daemon listens: HOST:PORT, or unix:PATH for a Unix socket.",
        ),
    ] = "127.0.0.1:50051",
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="SEGMENTD_TOKEN_FILE",
            help="File with the token to send, or the daemon's own; SEGMENTD_TOKEN can hold a token.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(envvar="SEGMENTD_CA", help="Authority of the daemon's certificate (PEM); turns TLS on."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(envvar="SEGMENTD_CERTIFICATE", help="Client certificate (PEM).")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(envvar="SEGMENTD_KEY", help="Key of the client certificate (PEM).")
    ] = None,
) -> None:
    context.obj = Connection(address, token_file, ca, certificate, key)


app.command("status")(status.status)
model_changes.add_to(models.app)
models.app.command("border")(model_border.border)
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")
app.add_typer(watch.app, name="watch")
app.command("tail")(tail.tail)
app.command("top")(top.top)
app.command("submit")(submit.submit)
app.command("batch")(batch.batch)
app.command("zen-bridge")(zen_bridge.zen_bridge)
app.command("min-confidence")(min_confidence.min_confidence)
here.add_to(app)


def main() -> None:
    """Run the command line and exit: 0 fine, 1 failed, 2 wrong usage."""
    app(prog_name="segmentctl")
