"""Which files a command line names, and what their results are called."""

from __future__ import annotations

import os
from pathlib import Path

from segmentd.cli import exits
from segmentd.ingest.names import is_image


def named_inputs(images: list[Path], keep_paths: bool) -> list[tuple[Path, bytes]]:
    """Each input with its name below the results folder; a folder stands for the images in it.

    Raises
    ------
    exits.UsageError
        Two inputs have the same name, or a folder holds no image.
    """
    files: list[Path] = []
    for path in images:
        if not path.is_dir():
            files.append(path)
            continue
        files_inside = sorted(entry for entry in path.iterdir() if entry.is_file())
        inside = [entry for entry in files_inside if is_image(os.fsencode(entry.name))]
        if not inside:
            raise exits.UsageError(f"{path}: holds no image")
        files.extend(inside)
    named: dict[bytes, Path] = {}
    for path in files:
        relative = _kept(path) if keep_paths else os.fsencode(path.name)
        other = named.setdefault(relative, path)
        if other is not path:
            raise exits.UsageError(
                f"{other} and {path} would share their results; use --keep-paths to mirror the "
                "folders, or name each input once"
            )
    return [(path, relative) for relative, path in named.items()]


def _kept(path: Path) -> bytes:
    """The path as given, without root and without steps upwards."""
    parts = [part for part in path.parts if part not in (path.anchor, "..", ".")]
    return os.fsencode("/".join(parts))
