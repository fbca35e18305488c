"""What every command needs: a client, and a way to say what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from segmentctl.client import Client


@contextmanager
def connected(context: typer.Context) -> Iterator[Client]:
    """Open a client at the address of the command line; faults end the command with exit code 1."""
    from segmentctl.client import Client
    from segmentctl.errors import DaemonError

    try:
        with Client(context.obj) as client:
            yield client
    except DaemonError as error:
        fail(error.message)


def note(message: str) -> None:
    """Tell something on stderr; stdout belongs to results."""
    typer.echo(f"segmentctl: {printable(message)}", err=True)


def fail(message: str) -> NoReturn:
    """Say what went wrong and end with exit code 1."""
    note(message)
    raise typer.Exit(1)


def printable(text: str) -> str:
    """Replace what could play tricks on a terminal; names of files may hold anything."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
