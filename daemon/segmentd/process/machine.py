"""What this machine has: memory, optional packages, folders that can be used, limits of the kernel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

MEBIBYTE = 1 << 20
LOW_MEMORY_BYTES = 1 << 30
LOW_DISK_BYTES = 1 << 30
FEW_WATCHES = 65_536
FEW_INSTANCES = 64
_INOTIFY = Path("/proc/sys/fs/inotify")
_MEMINFO = Path("/proc/meminfo")

# What each extra is for, and the packages it brings that are imported.
EXTRAS = {
    "onnx": ("imported networks (.czann, .onnx)", ("onnxruntime",)),
    "crf": ("the conditional random field of pydensecrf", ("pydensecrf",)),
    "gpu": ("NVIDIA cards", ("cupy", "cucim", "nvforest")),
    "cuml": ("training on NVIDIA cards", ("cuml",)),
    "deep": ("deep features, TensorFlow models", ("tensorflow",)),
    "czi": ("CZI files", ("pylibCZIrw",)),
    "zarr": ("OME-Zarr", ("zarr",)),
    "napari": ("the napari plugin", ("napari",)),
}


class State(StrEnum):
    """How a check ended; a note says what could be better, and is no failure."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, in plain words; `advice` says what to do where something is wrong."""

    about: str
    state: State
    text: str
    advice: str = ""


def memory() -> Check:
    """Memory that is free for us, of all there is."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        total, free = (1024 * int(lines[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return Check("memory", State.NOTE, f"{_MEMINFO} does not say how much there is")
    text = f"{free / 2**30:.1f} GiB of {total / 2**30:.1f} GiB are free"
    if free < LOW_MEMORY_BYTES:
        advice = "a plane of 100 megapixels takes about 1 GiB: end other programs"
        return Check("memory", State.NOTE, text, advice)
    return Check("memory", State.OK, text)


def extras() -> list[Check]:
    """Each extra: whether its packages are there."""
    checks = []
    for extra, (purpose, packages) in EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if not missing:
            checks.append(Check(f"extra {extra}", State.OK, f"installed, for {purpose}"))
        elif len(missing) < len(packages):
            advice = f"pip install 'segmentd[{extra}]'"
            checks.append(Check(f"extra {extra}", State.NOTE, f"{', '.join(missing)} missing", advice))
        else:
            checks.append(Check(f"extra {extra}", State.OK, f"not installed (for {purpose})"))
    return checks


def folder(about: str, path: Path, write: bool) -> Check:
    """Whether a folder is there, or could be made, and can be read or written."""
    existing = next((parent for parent in (path, *path.parents) if parent.exists()), path)
    if not existing.is_dir():
        return Check(about, State.FAILED, f"{existing} is not a folder", "name another one")
    if existing != path and not write:
        return Check(about, State.FAILED, f"{path} is not there", "make or mount it, or correct its name")
    try:
        if write:
            with tempfile.TemporaryFile(dir=existing):
                pass
        os.listdir(existing)  # noqa: PTH208 (a share that hangs or refuses shows here)
        free = shutil.disk_usage(existing).free
    except OSError as error:
        what = "written" if write else "read"
        reason = error.strerror or str(error)
        return Check(about, State.FAILED, f"{path} cannot be {what}: {reason}", "give this user the right to")
    room = f"{free / 2**30:.1f} GiB free"
    later = "" if existing == path else ", will be made"
    if write and free < LOW_DISK_BYTES:
        return Check(about, State.NOTE, f"{path}: only {room}{later}", "make room: full disks stop the work")
    return Check(about, State.OK, f"{path}: {room}{later}")


def inotify() -> Check:
    """Whether the kernel's limits leave room for watched folders."""
    try:
        watches, instances = (
            int((_INOTIFY / name).read_text(encoding="ascii"))
            for name in ("max_user_watches", "max_user_instances")
        )
    except (OSError, ValueError):
        return Check("file events", State.NOTE, "this system has none", "folders are looked at now and then")
    text = f"{watches:,} folders and {instances:,} programs can be told of changes"
    if watches < FEW_WATCHES or instances < FEW_INSTANCES:
        advice = (
            f"sysctl fs.inotify.max_user_watches={FEW_WATCHES} fs.inotify.max_user_instances=256; "
            "without, folders beyond that are polled"
        )
        return Check("file events", State.NOTE, text, advice)
    return Check("file events", State.OK, text)
