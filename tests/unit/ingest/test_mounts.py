"""Where no events can be had, the folder is polled, and the reason is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmentd.ingest import mounts

TABLE = b"""\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
30 22 0:40 / /mnt/scope rw,relatime shared:9 master:2 - cifs //scope/data rw,vers=3.1.1
31 30 0:41 / /mnt/scope/local rw - xfs /dev/sdb rw
32 22 0:42 / /mnt/my\\040share rw - nfs4 server:/x rw
33 22 0:43 / /mnt/user rw - fuse.sshfs host: rw
34 22 0:44 / /mnt/usb rw - fuseblk /dev/sdc1 rw
35 22 0:45 / /mnt/twice rw - ext4 /dev/sdd rw
36 22 0:46 / /mnt/twice rw - nfs server:/y rw
a line that nobody understands
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        (b"/", "ext4"),
        (b"/data", "ext4"),
        (b"/mnt/scope", "cifs"),
        (b"/mnt/scope/day1", "cifs"),
        (b"/mnt/scopes", "ext4"),
        (b"/mnt/scope/local/day1", "xfs"),
        (b"/mnt/my share/a", "nfs4"),
        (b"/mnt/user", "fuse.sshfs"),
        (b"/mnt/usb", "fuseblk"),
        (b"/mnt/twice/a", "nfs"),
    ],
)
def test_the_innermost_and_last_mount_counts(folder: bytes, kind: str) -> None:
    assert mounts.file_system_type(folder, TABLE) == kind


def test_an_empty_table_says_nothing() -> None:
    assert mounts.file_system_type(b"/data", b"") == ""


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nfs4", "it is on nfs4"),
        ("fuse.sshfs", "it is on fuse.sshfs"),
        ("cifs", "it is on cifs"),
        ("ext4", ""),
        ("fuseblk", ""),
        ("overlay", ""),
    ],
)
def test_remote_file_systems_are_polled(
    kind: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(b"1 0 0:1 / " + bytes(tmp_path) + b" rw - " + kind.encode() + b" x rw\n")
    monkeypatch.setattr(mounts, "MOUNT_TABLE", table)
    assert mounts.why_no_events(bytes(tmp_path / "a")).startswith(reason)
    assert bool(mounts.why_no_events(bytes(tmp_path / "a"))) == bool(reason)
    monkeypatch.setattr(mounts, "MOUNT_TABLE", tmp_path / "missing")
    assert mounts.why_no_events(bytes(tmp_path)) == ""
