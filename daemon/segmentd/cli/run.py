"""`segmentd run`: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segmentd.cli import exits


def run(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML); default: SEGMENTD_CONFIG, else built-in.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error; default: SEGMENTD_LOG, else info.")
    ] = None,
) -> None:
    """Run the daemon until Ctrl-C or SIGTERM: watch folders, segment, stream results.

    Prints one line `READY address=HOST:PORT` on stdout when it serves. Without a configuration file it
    listens on 127.0.0.1:50051, keeps its state in the user's data folder and watches nothing.
    """
    with exits.reported():
        import asyncio

        from segmentd import telemetry
        from segmentd.settings import load

        if log_level is not None:
            exits.require_choice("--log-level", log_level, telemetry.LEVELS)
        telemetry.configure(log_level)
        settings = load(config)

        from segmentd.daemon import Daemon

        def ready(address: str) -> None:
            typer.echo(f"READY address={address}")

        async def serve() -> None:
            await Daemon(settings).run(ready)

        asyncio.run(serve())
