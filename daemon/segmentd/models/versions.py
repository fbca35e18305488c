"""Versions of a model file: each new one takes the name at once, the ones before stay in a hidden folder.

`NAME.segmodel` is the current version. Older ones are `.versions/NAME.segmodel/000001`, and so on; the
current version has the number after the highest of them. Every step is synced, and a crash between two of
them leaves either the old or the new version under the name, whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from segmentd.errors import Reason, SegmentdError, write_errors

FOLDER = ".versions"
KEPT = 10
STAGED_SUFFIX = ".part"


@dataclass(frozen=True)
class KeptVersion:
    """An older version: its number, from 1, and its file."""

    number: int
    path: Path


def kept(path: Path) -> list[KeptVersion]:
    """The versions of a model file that are kept, oldest first; the current one may be the last of them."""
    try:
        names = [entry.name for entry in os.scandir(_folder(path))]
    except FileNotFoundError:
        return []
    numbers = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
    return [KeptVersion(number, _folder(path) / f"{number:06d}") for number in numbers]


def current_number(path: Path) -> int:
    """The number of the current version; of the last one where the model was deleted."""
    older = kept(path)
    if not older:
        return 1
    # The same file under both names: kept, and then nothing came in its place.
    same = path.exists() and path.samefile(older[-1].path)
    return older[-1].number if same or not path.exists() else older[-1].number + 1


def older(path: Path) -> list[KeptVersion]:
    """The versions before the current one, oldest first."""
    current = current_number(path)
    return [version for version in kept(path) if version.number < current or not path.exists()]


def find(path: Path, number: int) -> Path:
    """The file of a version.

    Raises
    ------
    SegmentdError
        BAD_FIELD, naming the versions that there are.
    """
    current = current_number(path)
    if number == current and path.exists():
        return path
    for version in kept(path):
        if version.number == number:
            return version.path
    numbers = ", ".join(str(version.number) for version in kept(path) if version.number != current) or "none"
    raise SegmentdError(
        Reason.BAD_FIELD,
        f"version {number} of {path.name} is not kept; older ones that are: {numbers} (the last {KEPT} are "
        "kept)",
        field="version",
    )


def staged_path(folder: Path) -> Path:
    """A new name in the models folder for a file that is not yet a model; nobody takes it for one."""
    with write_errors("models", folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f".{secrets.token_hex(6)}{STAGED_SUFFIX}"


def remove_staged(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in folder.glob(f".*{STAGED_SUFFIX}"):
        path.unlink(missing_ok=True)


def publish(staged: Path, path: Path) -> None:
    """Make a complete file of the same folder the current version; the one before is kept."""
    sync(staged)
    keep(path)
    staged.replace(path)
    sync(path.parent)
    _prune(path)


def replace(staged: Path, path: Path) -> None:
    """Put a complete file in the place of the current version without keeping that one."""
    sync(staged)
    staged.replace(path)
    sync(path.parent)


def keep(path: Path) -> None:
    """Keep the current version beside the ones before; nothing to do where there is none."""
    if not path.exists():
        return
    number = current_number(path)
    folder = _folder(path)
    _make(folder)
    target = folder / f"{number:06d}"
    if target.exists():
        return
    try:
        target.hardlink_to(path)
    except OSError:  # a file system without hard links
        copy = folder / f".{target.name}{STAGED_SUFFIX}"
        shutil.copyfile(path, copy)
        sync(copy)
        copy.replace(target)
    sync(folder)


def delete(path: Path, purge: bool) -> None:
    """Take the model away; unless `purge`, its versions stay and can be brought back."""
    if not purge:
        keep(path)
    path.unlink(missing_ok=True)
    sync(path.parent)
    if purge:
        shutil.rmtree(_folder(path), ignore_errors=True)


def deleted(folder: Path, name: str) -> Path | None:
    """The path of a deleted model whose versions are kept, by the stem of its file."""
    for entry in sorted((folder / FOLDER).glob(f"{name}.*")) if (folder / FOLDER).is_dir() else []:
        path = folder / entry.name
        if not path.exists() and kept(path):
            return path
    return None


def copy_of(source: Path, folder: Path) -> Path:
    """A staged copy of a file in the models folder."""
    staged = staged_path(folder)
    try:
        shutil.copyfile(source, staged)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    return staged


def sync(path: Path) -> None:
    """Make a file or the entries of a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folder(path: Path) -> Path:
    return path.parent / FOLDER / path.name


def _make(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sync(folder.parent)
    sync(folder.parent.parent)


def _prune(path: Path) -> None:
    before = older(path)
    for version in before[: max(0, len(before) - KEPT)]:
        version.path.unlink(missing_ok=True)
