"""A real daemon in a temporary folder: a child process with a synthetic model and empty hot folders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segmentd.cli import demo_daemon
from segmentd.models import bundle

MODEL = "benchmark"

_COMMON = """\
[server]
listen = "127.0.0.1:0"
allow_shared_memory = true

[open_inference]
enabled = true
echo_model = true

[models]
folder = "models"

[journal]
folder = "journal"

[device]
threads = {threads}
"""
# Images under another name are not taken up: so many can be put in place at once by renaming them.
_WATCH = """
[[watch]]
id = "hot-{number}"
folder = "hot-{number}"
include = ["*.tif"]
model = "{model}"
"""


@dataclass(frozen=True)
class Served:
    """A daemon that is ready: its address, its process, and the folders that it watches."""

    address: str
    pid: int
    folders: tuple[Path, ...]


@contextmanager
def serving(
    model: bundle.Model, threads: int, watches: int = 1, parent: Path | None = None
) -> Iterator[Served]:
    """Run a daemon for as long as the block runs.

    Parameters
    ----------
    model : Model
        What it segments with.
    threads : int
        How many compute.
    watches : int
        How many folders it watches.
    parent : Path, optional
        Where its temporary folder is made: on the disk to be measured.

    Raises
    ------
    SegmentdError
        INTERNAL with the end of its log, if it does not start or does not end well.
    """
    with tempfile.TemporaryDirectory(prefix="segmentd-bench-", dir=parent) as name:
        home = Path(name)
        folders = tuple(home / f"hot-{number}" for number in range(watches))
        for folder in (home / "models", home / "journal", *folders):
            folder.mkdir()
        bundle.save(model, home / "models" / f"{MODEL}{bundle.SUFFIX}")
        tables = [_COMMON.format(threads=threads)]
        tables += [_WATCH.format(number=number, model=MODEL) for number in range(watches)]
        config = home / "segmentd.toml"
        config.write_text("".join(tables), encoding="utf-8")
        with demo_daemon.running(config) as child:
            yield Served(child.address, child.pid, folders)
