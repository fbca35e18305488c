"""Tables on a terminal, and plain columns in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segmentctl.cli.connection import printable

_PIPE_WIDTH = 200


def show(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str = "") -> None:
    """Print a table; `empty` is said on stdout when there are no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if table.row_count == 0:
        console().print(empty, markup=False)
    else:
        console().print(table)


def console() -> Console:
    """Give the console of stdout: as wide as the terminal, or as a long line in a pipe."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
