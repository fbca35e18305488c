"""What commands show on a terminal: progress bars, tables and notes, all on stderr except results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

Step = Callable[[int, str], None]


def line(text: str) -> None:
    """One line of the result, on stdout."""
    _out.print(text, markup=False)


def note(text: str) -> None:
    """One line beside the result, on stderr."""
    _err.print(text, markup=False, style="yellow" if _err.is_terminal else None)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    width = max(_out.width, 20)
    if not _out.is_terminal:
        # A file or a pipe has no width: never cut a name short.
        width = 400
    Console(highlight=False, markup=False, width=width).print(drawn)


@contextmanager
def progress(what: str, total: int) -> Iterator[Step]:
    """A progress bar on stderr; call the yielded function with (number done, what is being done)."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeElapsedColumn(),
        TextColumn("{task.fields[current]}", markup=False),
        console=_err,
        disable=not _err.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total, current="")
        yield lambda done, current: bar.update(task, completed=done, current=current)
