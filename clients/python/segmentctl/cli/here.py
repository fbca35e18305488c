"""Commands of segmentd that look at this machine rather than at a daemon, under the client's name as well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import typer

_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_to(app: typer.Typer) -> None:
    """Add them: each runs `segmentd` of the same installation, and exits as that does."""
    for name, what in (
        ("inspect", "Say what the daemon sees in images, and what it would refuse."),
        ("verify", "Run a model on every device of this machine and compare labels and confidence."),
    ):
        text = f"{what} The same as `segmentd {name}`, whose --help tells the options."
        app.command(name, help=text, context_settings=_PASSED_ON)(_passing_on(name))


def _passing_on(name: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        done = subprocess.run([sys.executable, "-m", "segmentd", name, *context.args], check=False)
        raise typer.Exit(done.returncode)

    return run
