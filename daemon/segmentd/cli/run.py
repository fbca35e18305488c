"""`segmentd run`: the daemon."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    from segmentd.process.claims import Claims
    from segmentd.settings import Settings


def run(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML); default: SEGMENTD_CONFIG, else built-in.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error; default: SEGMENTD_LOG, else info.")
    ] = None,
) -> None:
    """Run the daemon until Ctrl-C or SIGTERM: watch folders, segment, stream results.

    Prints one line `READY address=HOST:PORT` (or `unix:PATH`) on stdout when it serves. Without a
    configuration file it listens on 127.0.0.1:50051, keeps its state in the user's data folder and
    watches nothing.
    """
    # Nothing has begun: until the event loop listens to signals, one just ends the process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    with exits.reported():
        import asyncio

        from segmentd import telemetry
        from segmentd.settings import load

        if log_level is not None:
            exits.require_choice("--log-level", log_level, telemetry.LEVELS)
        telemetry.configure(log_level)
        settings = load(config)
        claims = _claim(settings)

        from segmentd.daemon import Daemon

        def ready(address: str) -> None:
            typer.echo(f"READY address={address}")

        async def serve() -> None:
            await Daemon(settings, claims).run(ready)

        asyncio.run(serve())


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(exits.ExitCode.OK)


def _claim(settings: Settings) -> Claims:
    """Claim what belongs to one daemon only, before anything that takes time is begun."""
    from segmentd.process.claims import Claims, check_port_free
    from segmentd.process.socket_file import check_socket_free

    server = settings.server
    claims = Claims()
    claims.claim(settings.journal.folder, subject="journal.folder").hold()
    for watch in settings.watch:
        claims.claim(watch.folder, watch.results_folder, subject=f"watch '{watch.id}'").hold()
    if server.listen:
        check_port_free(server.host, server.port, server.listen)
    if server.unix_socket is not None:
        check_socket_free(server.unix_socket)
    return claims
