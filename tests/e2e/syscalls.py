"""System calls of a process as strace saw them, in order, with begin and end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_LINE = re.compile(r"^(?P<thread>\d+) +(?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"^(?P<start>(?P<name>\w+)\(.*\)) += (?P<result>-?\d+|\?)")
_PATH = re.compile(r"^\w+\(\d+<(?P<path>.*?)>(?:, |\))")


@dataclass(frozen=True)
class Call:
    """A system call that ended.

    Attributes
    ----------
    begin, end : int
        Lines of the trace where it began and ended: one call came after another if it began after that ended.
    name, text : str
        Its name; name and arguments as strace writes them, descriptors with their paths.
    result : int
        What it returned, -1 on an error.
    """

    begin: int
    end: int
    name: str
    text: str
    result: int

    @property
    def path(self) -> str:
        """Path of the descriptor that is the first argument."""
        match = _PATH.match(self.text)
        return match["path"] if match else ""


def strace(trace: Path, calls: str, *options: str) -> list[str]:
    """Return the command that traces what follows it, in the same process; skip where there is no strace."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("needs strace")
    # --seccomp-bpf stops the process for these calls only; -s: whole pages of the journal
    how = ["-D", "-f", "--seccomp-bpf", "-y", "-s", "8192"]
    return [program, *how, "-o", str(trace), "-e", f"trace={calls}", *options]


def read_trace(trace: Path) -> list[Call]:
    """Read the calls that ended, by their begin."""
    return sorted(_calls(trace), key=lambda call: call.begin)


def _calls(trace: Path) -> Iterator[Call]:
    unfinished: dict[str, tuple[int, str]] = {}
    with trace.open(errors="replace") as lines:
        for number, line in enumerate(lines):
            match = _LINE.match(line)
            if match is None:
                return  # the last line is still being written
            thread, text, begin = match["thread"], match["rest"], number
            resumed = _RESUMED.match(text)
            if resumed is not None:
                begin, start = unfinished.pop(thread)
                text = start + resumed["rest"].lstrip(" ") if start.endswith("(") else start + resumed["rest"]
            elif text.endswith(_UNFINISHED):
                unfinished[thread] = (number, text.removesuffix(_UNFINISHED))
                continue
            ended = _RESULT.match(text)
            if ended is not None and ended["result"] != "?":
                yield Call(begin, number, ended["name"], ended["start"], int(ended["result"]))
