"""Which process has something that we want, as the kernel tells it."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PROC = Path("/proc")
_LISTENING = "0A"


@dataclass(frozen=True)
class Holder:
    """A process: its id, the host it runs on, and since when (local time); empty where nobody can tell."""

    pid: str = ""
    host: str = ""
    since: str = ""

    def __str__(self) -> str:
        process = f"process {self.pid}" if self.pid else "a process that cannot be seen from here"
        host = f" on {self.host}" if self.host else ""
        since = f", running since {self.since}" if self.since else ""
        return f"{process}{host}{since}"

    def metadata(self) -> dict[str, str]:
        """The fields that are known, for an error."""
        fields = {"pid": self.pid, "host": self.host, "since": self.since}
        return {key: value for key, value in fields.items() if value}


def process(pid: int | None) -> Holder:
    """What is known of a process on this host; all but the host is empty where there is none."""
    host = socket.gethostname()
    if pid is None:
        return Holder(host=host)
    started = _start_time(pid)
    since = datetime.fromtimestamp(started).astimezone() if started is not None else None
    return Holder(str(pid), host, since.isoformat(" ", "seconds") if since else "")


def of_lock(status: os.stat_result) -> int | None:
    """Id of a process that has a `flock` on the file or folder of that status; None if it is hidden."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    others = []
    for line in _lines(PROC / "locks"):
        match = re.match(r"\d+: FLOCK +\S+ +\S+ +(\d+) ([0-9a-f]+:[0-9a-f]+):(\d+) ", line)
        if match is not None and int(match[3]) == status.st_ino and int(match[1]) > 0:
            others.append((match[2] != device, int(match[1])))
    # Layered file systems show another device here than `stat` does.
    return min(others)[1] if others else None


def of_port(port: int) -> int | None:
    """Id of a process that listens on a TCP port; None if it is hidden, as another user's is."""
    wanted = {f"socket:[{inode}]" for inode in _listeners(port)}
    for folder in PROC.glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in wanted for link in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return None


def _listeners(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        for line in _lines(PROC / "net" / table)[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _start_time(pid: int) -> float | None:
    """When a process started, in seconds since the epoch."""
    stat = _lines(PROC / str(pid) / "stat")
    if not stat:
        return None
    ticks = int(stat[0].rpartition(")")[2].split()[19])  # the name in parentheses may hold anything
    running = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - running


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not everywhere, and not for everybody
        return []
