"""What the daemon says about itself: log lines for people and machines, stage timers, counters.

A log line is one line of `key=value` pairs on stderr. Whatever varies is a field, never part of the
message, and no file name can break the line or the terminal:

    log = get_logger(__name__)
    log.warning("folder unreachable", folder=path, retry_seconds=4)

    time=2026-01-31T12:00:00.000+00:00 level=warning logger=segmentd.ingest msg="folder unreachable" ...
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from segmentd.errors import ConfigurationError

LEVELS = ("debug", "info", "warning", "error")
LEVEL_VARIABLE = "SEGMENTD_LOG"
_STANDARD_ARGUMENTS = {"exc_info", "stack_info", "stacklevel", "extra"}
_NEEDS_QUOTES = frozenset(' "=\\')


class Logger(logging.LoggerAdapter[logging.Logger]):
    """A standard logger whose calls take fields as keyword arguments."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Move what `logging` does not know from the call into the record's fields."""
        fields = {key: value for key, value in kwargs.items() if key not in _STANDARD_ARGUMENTS}
        standard = {key: value for key, value in kwargs.items() if key in _STANDARD_ARGUMENTS}
        standard["extra"] = {**(standard.get("extra") or {}), "fields": fields}
        return msg, standard


def get_logger(name: str) -> Logger:
    """Return the logger of a module; `name` is its `__name__`."""
    return Logger(logging.getLogger(name), {})


class LineFormatter(logging.Formatter):
    """One line of `key=value` pairs for each record, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line without an end."""
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        pairs: dict[str, object] = {
            "time": stamp,
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        pairs.update(getattr(record, "fields", {}))
        if record.exc_info:
            pairs["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            pairs["stack"] = record.stack_info
        return " ".join(f"{key}={printable(value)}" for key, value in pairs.items())


def printable(value: object) -> str:
    """Return a value for a log line: quoted where needed, nothing in it that a terminal acts on.

    Bytes are taken as a file name. Control characters, bytes that are not UTF-8 and characters
    that change the direction of text come out as escapes.
    """
    if isinstance(value, float):
        return f"{round(value, 6)}"
    text = os.fsdecode(value) if isinstance(value, bytes | os.PathLike) else str(value)
    if text.isprintable() and text and not _NEEDS_QUOTES.intersection(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in quoted)


class _StderrHandler(logging.StreamHandler[Any]):
    """Ours, so that a second `configure` finds and replaces it."""


def configure(level: str | None = None) -> None:
    """Send log lines to stderr; may be called again.

    Parameters
    ----------
    level : str, optional
        `debug`, `info`, `warning` or `error`, for our own modules; of other packages only warnings
        and errors are shown. Without it the environment variable SEGMENTD_LOG counts, else `info`.

    Raises
    ------
    ConfigurationError
        If the level is none of these.
    """
    name = LEVEL_VARIABLE if level is None else "log level"
    wanted = level if level is not None else os.environ.get(LEVEL_VARIABLE) or "info"
    if wanted.lower() not in LEVELS:
        raise ConfigurationError([f"{name} = {json.dumps(wanted)}: must be one of {', '.join(LEVELS)}"])
    handler = _StderrHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _StderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("segmentd").setLevel(wanted.upper())
    logging.captureWarnings(True)


@dataclass(frozen=True, slots=True)
class StageTotal:
    """How often a stage ran, and for how many seconds in all."""

    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Meter:
    """Stage timers and counters; every method may be called from any thread."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stages: defaultdict[str, StageTotal] = field(default_factory=lambda: defaultdict(StageTotal))
    _counts: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes, also when it fails, to the stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                total = self._stages[name]
                self._stages[name] = StageTotal(total.count + 1, total.seconds + seconds)

    def count(self, name: str, amount: int = 1) -> None:
        """Add `amount` to the counter `name`."""
        with self._lock:
            self._counts[name] += amount

    def stages(self) -> dict[str, StageTotal]:
        """Return the totals of all stages so far."""
        with self._lock:
            return dict(self._stages)

    def counts(self) -> dict[str, int]:
        """Return all counters."""
        with self._lock:
            return dict(self._counts)


class LastMinute:
    """How many images ended in the last minute, and how many of their pixels were segmented.

    Belongs to one event loop. `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Second, images, pixels; one entry for each second with news.
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=60)

    def add(self, pixels: int) -> None:
        """Note an image that ended."""
        now, images = int(self._clock()), 1
        if self._seconds and self._seconds[-1][0] == now:
            _, earlier, counted = self._seconds.pop()
            images, pixels = images + earlier, pixels + counted
        self._seconds.append((now, images, pixels))

    def totals(self) -> tuple[int, int]:
        """Return images and pixels of the last minute."""
        since = int(self._clock()) - 60
        recent = [entry for entry in self._seconds if entry[0] > since]
        return sum(entry[1] for entry in recent), sum(entry[2] for entry in recent)


METER = Meter()
stage = METER.stage
count = METER.count
