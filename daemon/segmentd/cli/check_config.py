"""`segmentd check-config`: what a configuration means, or everything that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentd.cli import exits

if TYPE_CHECKING:
    import rich.table

    from segmentd.settings.schema import Table

# A file or a pipe has no width: nothing is folded.
_PIPE_WIDTH = 1000


def check_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The TOML file.")],
) -> None:
    """Check a configuration without starting the daemon, and show what it means.

    Of a bad one every problem is printed on a line of its own (key = value: rule); the exit code is 78.
    """
    from rich.console import Console

    from segmentd.settings import load

    with exits.reported():
        settings = load(file)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    for name in ("server", "open_inference", "device", "models", "journal", "metrics", "tracing"):
        console.print(_drawn(f"[{name}]", getattr(settings, name)))
    for watch in settings.watch:
        effective = {"results": watch.results_folder, "give_up_seconds": watch.give_up}
        console.print(_drawn("[[watch]]", watch.model_copy(update=effective)))
    if not settings.watch:
        console.print("No [[watch]]: the daemon segments only what clients send it.")


def _drawn(title: str, table: Table) -> rich.table.Table:
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(title=Text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("key", "value", "meaning"):
        drawn.add_column(column, header_style="bold", overflow="fold")
    for row in _rows(table):
        drawn.add_row(*map(Text, row))
    return drawn


def _rows(table: Table) -> list[list[str]]:
    """Return key, value and meaning."""
    from segmentd.settings.problems import toml

    return [
        [key, "-" if value is None else toml(value), field.description or ""]
        for (key, field), value in zip(type(table).model_fields.items(), dict(table).values(), strict=True)
    ]
