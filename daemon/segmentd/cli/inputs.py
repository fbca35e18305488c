"""Which files a command line names, and what their results are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from segmentd.cli import exits
from segmentd.ingest.names import is_image, is_store


def named_inputs(images: list[Path], keep_paths: bool) -> list[tuple[Path, bytes]]:
    """Each input with its name below the results folder; a folder stands for the images in it.

    A file of an OME-TIFF set is left out where the one that stands for the set is an input, too.

    Raises
    ------
    exits.UsageError
        Two inputs have the same name, or a folder holds no image.
    """
    files: list[Path] = []
    for path in images:
        if not path.is_dir() or is_store(os.fsencode(path.name)):
            files.append(path)
            continue
        inside = [entry for entry in sorted(path.iterdir()) if _is_image(entry)]
        if not inside:
            raise exits.UsageError(f"{path}: holds no image")
        files.extend(inside)
    named: dict[bytes, Path] = {}
    for path in _without_parts(files):
        relative = _kept(path) if keep_paths else os.fsencode(path.name)
        other = named.setdefault(relative, path)
        if other is not path:
            raise exits.UsageError(
                f"{other} and {path} would share their results; use --keep-paths to mirror the "
                "folders, or name each input once"
            )
    return [(path, relative) for relative, path in named.items()]


def _without_parts(files: list[Path]) -> list[Path]:
    from segmentd.ingest.members import leader_beside

    if len(files) < 2:
        return files
    there = {path.absolute() for path in files}
    leaders = ((path, leader_beside(path)) for path in files)
    return [path for path, leader in leaders if leader is None or leader.absolute() not in there]


def _is_image(path: Path) -> bool:
    name = os.fsencode(path.name)
    return path.is_dir() if is_store(name) else path.is_file() and is_image(name)


def find_model(reference: str, folder: Path | None) -> Path:
    """The file of a model: a path, or what bears that id or name in `folder` (default: the daemon's).

    Raises
    ------
    SegmentdError
        MODEL_NOT_FOUND, MODEL_AMBIGUOUS.
    """
    import asyncio

    from segmentd.models.registry import Registry
    from segmentd.settings import load
    from segmentd.settings.values import MODEL_SUFFIXES

    path = Path(reference)
    if path.suffix in MODEL_SUFFIXES or path.is_file():
        return path
    registry = Registry(folder or load(None).models.folder, _unused, _unused)
    return asyncio.run(registry.find(reference)).path


def _unused(path: Path) -> NoReturn:
    raise AssertionError(f"looking for a model does not load it: {path}")


def _kept(path: Path) -> bytes:
    """The path as given, without root and without steps upwards."""
    parts = [part for part in path.parts if part not in (path.anchor, "..", ".")]
    return os.fsencode("/".join(parts))
