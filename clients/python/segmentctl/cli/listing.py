"""What commands that list things have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (proto3 JSON with proto field names).")]


def id_of(name: str) -> str:
    """Give the id at the end of a resource name."""
    return name.rpartition("/")[2]


def show(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "") -> None:
    """Print a table; `empty` is said when there are no rows."""
    from segmentctl.cli import tables

    tables.show(columns, rows, empty=empty)


def print_json(messages: Message | Sequence[Message], **more: Sequence[Message]) -> None:
    """Print a message, or an array of messages, as JSON; `more` is added to the fields of a message."""
    import json

    from segmentctl.cli.messages import as_dict

    def plain(value: Any) -> Any:
        return [as_dict(item) for item in value] if isinstance(value, Sequence) else as_dict(value)

    shown = plain(messages)
    if more:
        shown |= {name: plain(value) for name, value in more.items()}
    typer.echo(json.dumps(shown, indent=2))
