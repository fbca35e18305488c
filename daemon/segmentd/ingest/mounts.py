"""On what kind of file system a folder is: on some of them no file events can be had."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNT_TABLE = Path("/proc/self/mountinfo")
# Changes made by another machine, or behind a file system in user space, send no inotify events here.
REMOTE = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"}
)
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def file_system_type(folder: bytes, mount_table: bytes) -> str:
    """Return the type of the file system that a real path is on, empty if the table does not say.

    Parameters
    ----------
    folder : bytes
        Absolute path without links.
    mount_table : bytes
        Content of `/proc/self/mountinfo`; of several mounts on one point the last one counts.
    """
    best, found = b"", ""
    for line in mount_table.splitlines():
        mount, _, source = line.partition(b" - ")
        fields = mount.split(b" ")
        if len(fields) < 5 or not source:
            continue
        point = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
        inside = point == b"/" or folder == point or folder.startswith(point + b"/")
        if inside and len(point) >= len(best):
            best, found = point, source.split(b" ")[0].decode("ascii", "replace")
    return found


def why_no_events(folder: bytes) -> str:
    """Say why changes in a folder send no events to this machine, empty if they do."""
    try:
        kind = file_system_type(os.path.realpath(folder), MOUNT_TABLE.read_bytes())
    except OSError:
        return ""
    remote = kind in REMOTE or kind.startswith("fuse.") or kind == "fuse"
    return f"it is on {kind}, which sends no events of what others change" if remote else ""
