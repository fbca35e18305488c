"""Small file systems of a daemon's own: they fill up, turn read-only, and go when it ends."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from .daemon import DaemonProcess

_NAMESPACES = ["--mount"] if os.getuid() == 0 else ["--user", "--map-root-user", "--mount"]


def mount_for(daemon: DaemonProcess, mounts: Mapping[Path, str]) -> None:
    """Have the daemon's next start see a tmpfs in each folder, with options; nobody else sees them.

    Skips the test where the system lets nobody mount.
    """
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"needs to mount a tmpfs in a namespace: {tried.stderr.decode().strip()}")
    for folder in mounts:
        folder.mkdir(parents=True, exist_ok=True)
    script = [
        shlex.join(["mount", "-t", "tmpfs", "-o", how, "none", str(folder)]) for folder, how in mounts.items()
    ]
    daemon.prefix = ["unshare", *_NAMESPACES, "sh", "-ec", "; ".join([*script, 'exec "$0" "$@"'])]


def seen_by(daemon: DaemonProcess, folder: Path) -> Path:
    """Return the way to a folder as the running daemon sees it."""
    return Path(f"/proc/{daemon.pid}/root{folder}")


def remount(daemon: DaemonProcess, folder: Path, how: str) -> None:
    """Change the options of one of the mounts."""
    namespaces = [option for option in _NAMESPACES if option != "--map-root-user"]
    subprocess.run(
        ["nsenter", f"--target={daemon.pid}", *namespaces, "mount", "-o", f"remount,{how}", str(folder)],
        check=True,
    )


def fill_up(folder: Path) -> Path:
    """Fill a file system to its last byte; remove the returned file to make room."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast
