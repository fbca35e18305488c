"""How results are shown: progress, tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Step = Callable[[str], None]
Sheet = npt.NDArray[np.uint8]
_err = Console(stderr=True, highlight=False)

_WIDTH, _BAR, _LEFT, _RIGHT, _HEAD = 1100, 34, 360, 130, 70
_INK, _PAPER, _RULE = (60, 50, 40), (255, 255, 255), (225, 220, 215)
_COLORS = ((178, 114, 0), (0, 159, 230), (115, 158, 0), (167, 121, 204), (0, 94, 213))


@contextmanager
def progress(total: int) -> Iterator[Step]:
    """A progress bar on stderr; call the yielded function before each step with what it is."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=_err,
        transient=True,
    )
    done = -1

    def step(what: str) -> None:
        nonlocal done
        done += 1
        bar.update(task, completed=done, description=what)

    with bar:
        task = bar.add_task("", total=total)
        yield step


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], footer: str = "") -> None:
    """A table on stdout."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=200)
    drawn = Table(title=title, title_justify="left", caption=footer or None, caption_justify="left")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        drawn.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(drawn)


def line(text: str) -> None:
    """A line on stdout, below a table."""
    Console(highlight=False, markup=False, soft_wrap=True).print(text)


def footer(machine: dict[str, Any]) -> str:
    """One line about the machine and what decides over speed on it."""
    sets = " ".join(machine["instruction_sets"])
    versions = {"segmentd": machine["segmentd"], "Python": machine["python"]}
    versions |= {name: machine["libraries"].get(name, "?") for name in ("numba", "opencv-python-headless")}
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{machine['processor']}, {machine['cores']} cores, {sets}; {text}"


def bars(path: Path, title: str, unit: str, values: Sequence[tuple[str, float]], note: str = "") -> None:
    """Draw horizontal bars, one for each (name, value), as a PNG."""
    height = _HEAD + len(values) * (_BAR + 14) + 40
    sheet = np.full((height, _WIDTH, 3), _PAPER, np.uint8)
    _write(sheet, title, (20, 34), 0.75)
    longest = max(value for _, value in values) or 1.0
    room = _WIDTH - _LEFT - _RIGHT
    for share in (0.25, 0.5, 0.75, 1.0):
        x = _LEFT + round(share * room)
        cv2.line(sheet, (x, _HEAD - 10), (x, height - 45), _RULE, 1)
    for index, (name, value) in enumerate(values):
        y = _HEAD + index * (_BAR + 14)
        end = _LEFT + max(1, round(value / longest * room))
        cv2.rectangle(sheet, (_LEFT, y), (end, y + _BAR), _COLORS[index % len(_COLORS)], cv2.FILLED)
        _write(sheet, name, (20, y + 23), 0.5)
        _write(sheet, f"{_short(value)} {unit}", (end + 10, y + 23), 0.5)
    _write(sheet, note, (20, height - 16), 0.42)
    _save(path, sheet)


def series(path: Path, title: str, unit: str, values: Sequence[float], note: str = "") -> None:
    """Draw values in their order, from 0 up, as points joined by a line, as a PNG."""
    left, right, bottom = 110, _WIDTH - 40, _HEAD + 360
    sheet = np.full((bottom + 60, _WIDTH, 3), _PAPER, np.uint8)
    _write(sheet, title, (20, 34), 0.75)
    highest = max(values) or 1.0
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = round(bottom - share * (bottom - _HEAD))
        cv2.line(sheet, (left, y), (right, y), _RULE, 1)
        _write(sheet, f"{_short(share * highest)} {unit}", (20, y + 5), 0.42)
    across = np.linspace(left, right, len(values)) if len(values) > 1 else np.array([(left + right) / 2])
    up = bottom - np.asarray(values) / highest * (bottom - _HEAD)
    points = np.rint(np.column_stack([across, up])).astype(np.int32)
    cv2.polylines(sheet, [points], False, _COLORS[0], 1, cv2.LINE_AA)
    for x, y in points:
        cv2.circle(sheet, (int(x), int(y)), 3, _COLORS[0], cv2.FILLED, cv2.LINE_AA)
    _write(sheet, note, (20, bottom + 44), 0.42)
    _save(path, sheet)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _save(path: Path, sheet: Sheet) -> None:
    if not cv2.imwrite(str(path), sheet):
        raise OSError(f"{path}: the plot cannot be written; name a PNG file in a folder that exists")


def _write(sheet: Sheet, text: str, at: tuple[int, int], scale: float) -> None:
    cv2.putText(sheet, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
