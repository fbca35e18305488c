"""How a command ends: exit codes, and errors as messages on stderr without a traceback."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from segmentd.errors import ConfigurationError, Reason, SegmentdError


class ExitCode(IntEnum):
    """What the process tells its caller; scripts and service managers rely on it."""

    OK = 0
    FAILED = 1
    USAGE = 2
    LOCKED = 73
    BAD_CONFIGURATION = 78


_CODES = {Reason.LOCKED: ExitCode.LOCKED, Reason.BAD_CONFIGURATION: ExitCode.BAD_CONFIGURATION}


class UsageError(Exception):
    """The command line asks for something that makes no sense; the message says what to give instead."""


def report(error: SegmentdError | UsageError | OSError) -> ExitCode:
    """Write an error to stderr and return the exit code that goes with it.

    A configuration has one line for each of its problems, in the form `key = value: rule`.
    """
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            typer.echo(problem, err=True)
    else:
        typer.echo(f"segmentd: {error}", err=True)
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    if isinstance(error, SegmentdError):
        return _CODES.get(error.reason, ExitCode.FAILED)
    return ExitCode.FAILED


@contextmanager
def reported() -> Iterator[None]:
    """End the process with message and exit code when the block fails in a way that we know.

    Any other exception is a mistake of ours and keeps its traceback.
    """
    try:
        yield
    except (SegmentdError, UsageError, OSError) as error:
        raise SystemExit(report(error)) from None


def require_choice(option: str, value: str, choices: Collection[str]) -> None:
    """Check that the value of an option is one of `choices`.

    Raises
    ------
    UsageError
        If it is not; the message lists them.
    """
    if value not in choices:
        raise UsageError(f"{option} {value}: must be one of {', '.join(choices)}")
