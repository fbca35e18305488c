"""`segmentctl top`: a live view of the daemon."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from segmentctl.cli.connection import connected

if TYPE_CHECKING:
    from segmentctl.cli.keys import Keys
    from segmentctl.cli.top_numbers import Answer, History
    from segmentctl.client import Client

HINT = "q leaves"


def top(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print the view once and end.")] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.2, max=60, help="How often to look.")
    ] = 1.0,
) -> None:
    """Show folders, queue, devices and times as they change; the key q leaves.

    In a pipe the view is printed once. Times and loads are of the last minute, or of as long as the view
    runs; printed once, they are of all the time since the daemon started.
    """
    from segmentctl.cli.keys import Keys
    from segmentctl.cli.top_numbers import History

    with connected(context) as client:
        history = History()
        history.add(_ask(client))  # a daemon that is not there ends the command
        if once or not sys.stdout.isatty():
            _print(client.address, history)
            return
        with Keys() as keys:
            _follow(client, history, keys, interval)


def _ask(client: Client) -> Answer:
    from segmentctl.cli.top_numbers import Answer

    return Answer(client.server(), list(client.watches()))


def _print(address: str, history: History) -> None:
    from segmentctl.cli.tables import console
    from segmentctl.cli.top_view import view

    console().print(view(address, history))


def _follow(client: Client, history: History, keys: Keys, interval: float) -> None:
    from rich.live import Live

    from segmentctl.cli.top_view import view
    from segmentctl.errors import DaemonError

    trouble = ""
    with Live(auto_refresh=False, screen=True) as live:
        while True:
            live.update(view(client.address, history, trouble=trouble, hint=HINT), refresh=True)
            if keys.pressed("q", interval):
                return
            try:
                history.add(_ask(client))
                trouble = ""
            except DaemonError as error:  # it may come back
                trouble = error.message
