"""How a benchmark ends: its result as asked for, or a message and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from segmentd_bench import options

FAILED = 1

Measured = tuple[ModuleType, dict[str, Any]]


def measured(run: Callable[[], Measured], as_json: bool, plot: Path | None) -> dict[str, Any]:
    """Run a benchmark and give its result on stdout, with `show` and `plot` of its module.

    Parameters
    ----------
    run : callable
        Imports the module of the benchmark, which takes its time, and returns it with the result.
    as_json : bool
        Print the result as one JSON object instead of a table.
    plot : Path, optional
        Also draw it there.
    """
    options.check_plot(plot)
    with reported():
        with redirect_stdout(sys.stderr):  # libraries that talk must not break the JSON
            benchmark, result = run()
        if as_json:
            typer.echo(json.dumps(result, indent=1))
        else:
            benchmark.show(result)
        if plot is not None:
            benchmark.plot(result, plot)
    return result


@contextmanager
def reported() -> Iterator[None]:
    """End the process with a message and no traceback for what is not a mistake of ours."""
    try:
        yield
    except _known_errors() as error:
        typer.echo(f"segmentd-bench: {error}", err=True)
        raise SystemExit(FAILED) from None


def _known_errors() -> tuple[type[Exception], ...]:
    """Looked up when something was raised; before, it would only slow the start."""
    from segmentctl.errors import DaemonError
    from segmentd.errors import SegmentdError
    from segmentd_bench.errors import BenchmarkError

    return SegmentdError, DaemonError, BenchmarkError, OSError
