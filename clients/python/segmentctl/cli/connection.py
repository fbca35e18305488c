"""What every command needs: a client, and a way to say what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from segmentctl.client import Client


@dataclass(frozen=True)
class Connection:
    """Where the daemon is and how to get in, as the command line says."""

    address: str
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@contextmanager
def connected(context: typer.Context) -> Iterator[Client]:
    """Open a client as the command line says; faults end the command with exit code 1."""
    from segmentctl.access import read_token
    from segmentctl.client import Client
    from segmentctl.errors import DaemonError

    to: Connection = context.obj
    try:
        token = read_token(to.token_file) if to.token_file else None
        with Client(to.address, token=token, ca=to.ca, certificate=to.certificate, key=to.key) as client:
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
