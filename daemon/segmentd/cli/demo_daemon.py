"""A daemon as a child process, for the demo and for benchmarks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from segmentd.errors import Reason, SegmentdError

START_SECONDS = 60.0
STOP_SECONDS = 15.0
LOG_NAME = "daemon.log"


@dataclass(frozen=True)
class ChildDaemon:
    """Where the daemon listens, and its process."""

    address: str
    pid: int


@contextmanager
def running(config: Path) -> Iterator[ChildDaemon]:
    """Start `segmentd run`, yield it when it is ready, stop it with SIGTERM; its log is beside `config`.

    Raises
    ------
    SegmentdError
        INTERNAL with the end of its log, if it does not get ready or does not end well.
    """
    log = config.with_name(LOG_NAME)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "segmentd", "run", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield ChildDaemon(_address(process, log), process.pid)
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_SECONDS)
        if code != 0:
            raise _failed(f"the daemon ended with exit code {code}", log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        line = process.stdout.readline() if process.stdout else ""
    finally:
        timer.cancel()
    ready, _, address = line.strip().partition(" address=")
    if ready != "READY":
        raise _failed("the daemon did not get ready", log)
    return address


def _failed(what: str, log: Path) -> SegmentdError:
    tail = log.read_text(errors="replace").splitlines()[-10:]
    return SegmentdError(Reason.INTERNAL, "\n".join([f"{what}; the end of {log}:", *tail]))
